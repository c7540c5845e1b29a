"""What a path stands for: a bundle, a bare file, a TensorRT plan or a served model, as sources that engines open."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rctk.blame import blame
from rctk_export.bundle import Bundle, file_sha256, is_bundle, read_bundle
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.remote_address import is_address, read_address
from rctk_export.input_spec import InputSpec
from rctk_export.tensorrt.record import PLAN, read_record
from rctk_kernels.errors import BundleError, EngineUnavailableError, OptionError

PREFERRED = ("cpu", "openvino", "cpu-mirror", "tensorrt")
"""Which int8 file is meant where neither ``--target`` nor the engine tells."""
OWN = {
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "torch-tensorrt": "tensorrt",
    "onnxruntime-tensorrt": "tensorrt",
    "onnxruntime-rtx": "tensorrt",
}
"""Engines for which a file of their own was made; where a bundle holds it, it is meant first."""
ONNX = ".onnx"
REMOTE, TENSORRT = "remote", "tensorrt"
FILE_ENGINES = ("onnxruntime", "auto")
"""What commands take where no engine is named; a served model then means ``remote``, a bare plan ``tensorrt``."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployed model and what belongs to it.

    Attributes:
        name: For tables and records.
        sha256: Of the bundle's manifest, or of the bare file.
        input: Its images.
        classes: Names of the classes; empty where a bare file does not say.
        float: The float file, where there is one.
        deployed: The int8 file, or the bare file or plan itself.
        bundle: The bundle, where it is one.
        evaluation: The deployed file with logits that are not rounded, which score attacks read; None where its own
            are not rounded, or where a bundle does not carry it.
    """

    name: str
    sha256: str
    input: InputSpec
    classes: tuple[str, ...]
    float: Source | None
    deployed: Source
    bundle: Bundle | None = None
    evaluation: Source | None = None

    def need_float(self) -> Source:
        """Return the float file, or say how to give one."""
        if self.float is None:
            raise OptionError(f"{self.name} has no float parent to compare with; name one with --float FILE.onnx")
        return self.float

    @property
    def served(self) -> bool:
        """Whether the deployed model is behind a server and its file is not here."""
        return is_address(self.deployed.path)

    @property
    def plan(self) -> bool:
        """Whether it is a bare TensorRT plan, without the ONNX file that it was built from."""
        return not self.served and self.deployed.path.suffix == PLAN

    @property
    def no_twin(self) -> str:
        """Why the deployed model has no twin here, such as ``its file is on the server``; else ``""``."""
        if self.served:
            return "its file is on the server"
        return "a TensorRT plan holds no graph to differentiate" if self.plan else ""

    def engine_of(self, engine: str) -> str:
        """Return the engine that is meant by ``--engine``: for a served model that can only be ``remote``.

        A bare plan runs in ``tensorrt`` only, and no other plan in its place.
        """
        kind, _, settings = engine.partition(":")
        if self.plan and "plan=" in settings:
            raise OptionError(f"{self.name} is the plan that runs; leave plan= out of --engine {engine}")
        only, where = (REMOTE, "on a server") if self.served else (TENSORRT, "in TensorRT")
        if not (self.served or self.plan) or kind == only:
            return engine
        if engine not in FILE_ENGINES:
            raise OptionError(f"{self.name} runs {where}, not in {engine}; leave --engine away, or say {only}:...")
        return only


@contextmanager
def open_deployment(
    path: Path,
    *,
    target: str | None = None,
    spec: InputSpec | None = None,
    parent: Path | None = None,
    engine: str = "",
) -> Iterator[Deployment]:
    """Resolve ``path``; files made on the way (normalisation put into a bare graph) live until the block ends.

    Args:
        path: Bundle folder, ``.onnx`` file, ``.plan`` file with its record, or the address of a served model.
        target: Which int8 file of a bundle; that of the engine or else of :data:`PREFERRED` by default.
        spec: Input of a bare file; refused for a bundle, which knows its own. A plan's record knows it too.
        parent: Float ``.onnx`` of a bare int8 file, with the same input spec; a bundle holds its own.
        engine: What will run it, as ``--engine`` has it; tells which file of a bundle is meant.

    Raises:
        BundleError: There is nothing usable at ``path``.
        OptionError: Flags are missing, or do not fit.
    """
    if is_address(path):
        with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
            yield _served(path, target, spec, parent, engine, Path(folder))
        return
    if is_bundle(path):
        if spec is not None:
            raise OptionError(f"{path} is a bundle and already holds normalisation; leave --input, --mean, --std away")
        if parent is not None:
            raise OptionError(f"{path} is a bundle and holds its float file; leave --float {parent} away")
        yield _from_bundle(read_bundle(path), target, engine)
        return
    if path.suffix == PLAN:
        with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
            yield _from_plan(path, target, spec, parent, Path(folder))
        return
    if not path.is_file() and path.suffix != ONNX:
        read_bundle(path)  # words the error
        raise BundleError(f"nothing usable at {path}")
    for file in (path, parent):
        _check_file(file)
    if spec is None:
        raise OptionError(f"{path.name} is a bare file; add --input 3x32x32 (and --mean, --std) to say what goes in")
    if target is not None:
        raise OptionError(f"--target chooses a file of a bundle; {path.name} is a bare file")
    with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
        deployed = _bare(path, spec, Path(folder), "int8")
        yield Deployment(
            name=path.name,
            sha256=file_sha256(path),
            input=deployed.input,
            classes=(),
            float=None if parent is None else _bare(parent, spec, Path(folder), "float"),
            deployed=deployed,
            evaluation=_unrounded(deployed),
        )


def _served(
    path: Path, target: str | None, spec: InputSpec | None, parent: Path | None, engine: str, folder: Path
) -> Deployment:
    """Ask the server what it runs; its answer stands for the hash of the file that is not here."""
    from rctk_export.engines.remote import Remote, describe  # noqa: PLC0415  # the client, only for an address

    address = read_address(path)
    if spec is None:
        raise OptionError(f"{address} is a served model; add --input 3x32x32 to say what goes in")
    if target is not None:
        raise OptionError(f"--target chooses a file of a bundle; {address} is one model")
    _check_file(parent)
    settings = ENGINES.build(engine) if engine.partition(":")[0] == REMOTE else None
    digest = describe(address, settings if isinstance(settings, Remote) else None).digest
    return Deployment(
        name=str(address),
        sha256=digest,
        input=spec,
        classes=(),
        float=None if parent is None else _bare(parent, spec, folder, "float"),
        deployed=Source(path=Path(str(address)), input=spec, role="int8", sha256=digest),
    )


def _from_plan(path: Path, target: str | None, spec: InputSpec | None, parent: Path | None, folder: Path) -> Deployment:
    """Take what the record of a plan says; the plan itself is read by the engine, where it may run."""
    if target is not None:
        raise OptionError(f"--target chooses a file of a bundle; {path.name} is a bare plan")
    record = read_record(path)
    _check_plan_input(path, record.input, spec, parent)
    _check_file(parent)
    return Deployment(
        name=path.name,
        sha256=record.plan_sha256,
        input=record.input,
        classes=(),
        float=None if parent is None or spec is None else _bare(parent, spec, folder, "float"),
        deployed=Source(path=path, input=record.input, role=record.model_role, sha256=record.plan_sha256),
    )


def _check_plan_input(path: Path, built: InputSpec, spec: InputSpec | None, parent: Path | None) -> None:
    """Refuse flags that say something else than what the plan was built for, and a float parent without any."""
    if spec is None:
        if parent is not None:
            raise OptionError(f"{parent.name} is a bare file; add --input 3x32x32 (and --mean, --std) for it")
        return
    if spec.normalises and parent is None:
        raise OptionError(f"{path.name} holds its normalisation since it was built; leave --mean and --std away")
    if spec.shape != built.shape:
        raise OptionError(
            f"{path.name} was built for images {'x'.join(map(str, built.shape))}, --input says "
            f"{'x'.join(map(str, spec.shape))}; leave --input away"
        )


def _from_bundle(bundle: Bundle, target: str | None, engine: str) -> Deployment:
    targets = bundle.targets()
    first = OWN.get(engine.partition(":")[0], PREFERRED[0])
    chosen = target or next((name for name in (first, *PREFERRED) if name in targets), None)
    if chosen is None:
        raise BundleError(f"{bundle.path} holds no int8 file; export again with --target cpu")
    return Deployment(
        name=bundle.name,
        sha256=bundle.sha256,
        input=bundle.input,
        classes=bundle.classes,
        float=bundle.source("float"),
        deployed=bundle.source("int8", chosen),
        bundle=bundle,
        evaluation=bundle.source("evaluation", chosen) if _carries(bundle, chosen) else None,
    )


def _carries(bundle: Bundle, target: str) -> bool:
    return any((file.role, file.target) == ("evaluation", target) for file in bundle.files)


def _unrounded(deployed: Source) -> Source | None:
    """Make the evaluation variant of a prepared bare file; None where its logits are not rounded."""
    if importlib.util.find_spec("onnx") is None:
        return None
    from rctk_export.evaluation_variant import unrounded_logits  # noqa: PLC0415  # only where onnx is installed
    from rctk_export.onnx_files import load_onnx, save_onnx  # noqa: PLC0415

    variant = unrounded_logits(load_onnx(deployed.path))
    if variant is None:
        return None
    path = deployed.path.with_name(f"evaluation-{deployed.path.name}")
    save_onnx(variant, path)
    return replace(deployed, path=path)


def _bare(path: Path, spec: InputSpec, folder: Path, role: str) -> Source:
    """Put normalisation and a dynamic batch into a bare ONNX file, where the onnx package is there to do it."""
    digest = file_sha256(path)
    if importlib.util.find_spec("onnx") is None:
        if spec.normalises:
            raise EngineUnavailableError(
                "putting --mean and --std into a bare file needs the onnx package; install it with "
                "`pip install 'rctk[host]'`, or export a bundle"
            )
        return Source(path=path, input=spec, role=role, sha256=digest)
    from rctk_export.intake import ROUNDED, notes, prepare, strip_softmax  # noqa: PLC0415  # only where onnx is installed
    from rctk_export.onnx_files import load_onnx, save_onnx  # noqa: PLC0415

    prepared = folder / f"{role}-{path.name}"
    with blame(path):
        ready = strip_softmax(prepare(load_onnx(path), spec))
        save_onnx(ready, prepared)
    if any(ROUNDED in note for note in notes(ready)):
        spec = replace(spec, dtype="uint8")
    return Source(path=prepared, input=spec, role=role, sha256=digest)


def _check_file(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix != ONNX:
        raise OptionError(
            f"{path} is not an {ONNX} file; give a bundle folder (from `rctk export --int8 MODEL`), an {ONNX} file, or "
            f"a TensorRT {PLAN} with its record"
        )
    if not path.is_file():
        raise OptionError(f"there is no file {path}; check the path")
