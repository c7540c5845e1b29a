"""How often an int8 file and its twin say the same: on clean images, on adversarial ones, and code by code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper

from rctk.attacks.pgd import PGD
from rctk.threat import ThreatModel
from rctk_export.capture import INPUT
from rctk_export.engine import Engine, EngineSettings, Source
from rctk_export.engines import ENGINES
from rctk_export.engines.onnxruntime import OnnxRuntime, unwanted_passes
from rctk_export.input_spec import FloatNCHW
from rctk_export.onnx_module import OnnxModule

OPENVINO = "openvino"
"""Engine and target of the same name."""
Classes = npt.NDArray[np.int64]
BATCH = 32
FLIP_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Engine against fast twin.

    Attributes:
        engine: Which engine ran the file, and whether it optimised the graph.
        samples: Images behind ``clean`` and ``adversarial``.
        clean: Share of images that both put in the same class.
        adversarial: The same on images made by PGD-10 against the twin.
        eps: Budget of those, linf.
        flip_rate: Share of activation codes on which ONNX Runtime and the twin differ, over ``flip_samples`` clean
            images.
        flip_samples: Images behind ``flip_rate``.
        parent: Share of the clean images that the engine puts in the class of the float parent; None without one.
    """

    engine: str
    samples: int
    clean: float
    adversarial: float
    eps: float
    flip_rate: float
    flip_samples: int
    parent: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def adversarial_images(twin: OnnxModule, images: FloatNCHW, eps: float, seed: int) -> FloatNCHW:
    """Return PGD-10 images against the twin's own predictions, ``(N, C, H, W)``; all go on for ten steps."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for start in range(0, len(images), BATCH):
        x = torch.from_numpy(images[start : start + BATCH])
        with torch.no_grad():
            y = twin(x).argmax(dim=1)
        made.append(PGD(steps=10, stop_at_success=False)(twin, x, y, ThreatModel(eps=eps), generator).detach().numpy())
    return np.concatenate(made).astype(np.float32)


def classes_of(module: OnnxModule, images: FloatNCHW) -> Classes:
    """Return the class that a graph gives every image, ``(N,)``."""
    with torch.inference_mode():
        starts = range(0, len(images), BATCH)
        return np.concatenate([module(torch.from_numpy(images[i : i + BATCH])).argmax(1).numpy() for i in starts])


def measure_agreement(
    source: Source,
    images: FloatNCHW,
    eps: float,
    *,
    optimize: bool,
    seed: int,
    parent: Classes | None = None,
) -> Agreement:
    """Compare an engine on an int8 file with the file's own twin.

    Args:
        source: The int8 ONNX file. One for ``openvino`` runs in OpenVINO where that is installed, all else in ONNX
            Runtime.
        images: Clean images ``(N, C, H, W)`` that calibration did not see.
        eps: Budget of the adversarial images.
        optimize: Let ONNX Runtime optimise the graph, as a deployment would.
        seed: Of the attack's random start.
        parent: Classes that the float parent gives the clean images, ``(N,)``.
    """
    twin = OnnxModule(source.path)
    attacked = adversarial_images(twin, images, eps, seed)
    name, settings = _engine(source.target, optimize=optimize)
    with settings.open(source) as engine:
        found = _asked(engine, images)
        clean = float((found == classes_of(twin, images)).mean())
        adversarial = float((_asked(engine, attacked) == classes_of(twin, attacked)).mean())
    some = images[:FLIP_IMAGES]
    return Agreement(
        engine=name,
        samples=len(images),
        clean=clean,
        adversarial=adversarial,
        eps=eps,
        flip_rate=flip_rate(source, twin, some, optimize=optimize),
        flip_samples=len(some),
        parent=None if parent is None else float((found == parent).mean()),
    )


def _engine(target: str, *, optimize: bool) -> tuple[str, EngineSettings]:
    if target == OPENVINO and find_spec(OPENVINO) is not None:
        return OPENVINO, ENGINES.build(OPENVINO)
    return "onnxruntime" if optimize else "onnxruntime, graph not optimised", OnnxRuntime(optimize=optimize)


def _asked(engine: Engine, images: FloatNCHW) -> Classes:
    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate([engine.predict(batch).argmax(1) for batch in batches])


def flip_rate(source: Source, twin: OnnxModule, images: FloatNCHW, *, optimize: bool) -> float:
    """Return the share of activation codes on which ONNX Runtime and the twin differ."""
    model = onnx.load(source.path)
    names = activation_codes(model)
    if not names:
        return 0.0  # grids at run time, or activations in float: there are no codes to compare
    differing = total = 0
    session = _session(model, names, source.target, optimize=optimize)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            found = session.run(names, {INPUT: batch})
            expected = twin.observe(torch.from_numpy(batch), names)
            for name, codes in zip(names, found, strict=True):
                differing += int((codes.astype(np.int64) != expected[name].numpy().astype(np.int64)).sum())
                total += codes.size
    return differing / max(total, 1)


def activation_codes(model: onnx.ModelProto) -> list[str]:
    """Return the names of all quantized activations: outputs of QuantizeLinear that do not hold weights."""
    constants = {t.name for t in model.graph.initializer}
    return [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]


def _session(model: onnx.ModelProto, names: list[str], target: str, *, optimize: bool) -> Any:
    import onnxruntime as ort  # noqa: PLC0415  # only exports come here

    types = {t.name: t.data_type for t in model.graph.initializer}
    zeros = {n.output[0]: types[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(
        helper.make_tensor_value_info(name, zeros.get(name, TensorProto.UINT8), None) for name in names
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        exposed.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=unwanted_passes(target),
    )
