"""What the commands of a study would refuse when they start, looked at before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rctk.cli.flags import DataFlags
from rctk.cli.protocol_runs import chosen
from rctk.cli.read_model import read_model
from rctk.compress.order import check_order, settled_in
from rctk.data.read import need_split
from rctk.deployment import open_deployment
from rctk.exporting.by_recipe import check_decided, check_graph_steps, check_grids, check_settings
from rctk.exporting.export import ExportSettings
from rctk.exporting.quantized_checkpoint import holds_quantized, read_quantized
from rctk.forms import check_forms, check_pairs, need_gradients
from rctk.metrics.measured import METRICS
from rctk.statistics.non_inferiority import check_margin
from rctk.study.commands import Images, Known
from rctk_export.bundle import file_sha256
from rctk_kernels.errors import ModelError, OptionError

if TYPE_CHECKING:
    from rctk.compress.recipe import Recipe

Arguments = Mapping[str, Any]


def _compressed(given: Arguments) -> Known:
    """Read a model file; a graph is only asked for its input, since reading it whole takes seconds."""
    path, flags = Path(given["model"]), given["flags"]
    if not path.is_file():
        raise ModelError(f"{path} is no file; give a model file, or `bundle: {path}` for what is exported already")
    spec = flags.spec()
    if path.suffix == ".onnx":
        if spec is None:
            raise OptionError(f"{path.name} does not say how its images look; add input: 3x32x32 (and mean, std)")
        return Known(spec, file_sha256(path))
    model = read_model(path, flags)
    return Known(model.input, file_sha256(path))


def _deployed(given: Arguments) -> Known:
    with open_deployment(
        given["path"], target=given["target"], spec=given["flags"].spec(), parent=given["parent"]
    ) as deployment:
        parent = "" if deployment.float is None else deployment.float.sha256
        return Known(deployment.input, f"{deployment.sha256}{parent}")


def check_export(given: Arguments, recipe: Recipe | None) -> tuple[Images, ...]:
    """Check settings, targets and steps of an export; return the images that calibration and steps read."""
    names = ExportSettings.__dataclass_fields__
    own = {name: given[name] for name in names if name in given}
    settings = ExportSettings(**own, targets=given["target"])
    seed, download, calibration = given["seed"], given["download"], given["calibration"]
    need_split(calibration, "calibration:")
    if given["data"]:
        need_split(given["data"], "data:")
    calibrated = Images("calibration", calibration, settings.images_wanted, seed, download)
    _check_graph(Path(given["model"]), recipe, settings)
    if recipe is None:
        return (calibrated,)
    check_settings(recipe, settings)
    learned = Images("data", given["data"] or calibration, given["samples"], seed, download)
    validation = given["recipe"].validation
    return (
        *((calibrated,) if given["data"] else ()),
        learned,
        *((Images("validation", validation, None, seed, download),) if validation else ()),
    )


def _check_graph(path: Path, recipe: Recipe | None, settings: ExportSettings) -> None:
    """Refuse what a graph cannot undergo, or what earlier steps have decided in it."""
    quantized = holds_quantized(path)
    if recipe is not None and (quantized or path.suffix == ".onnx"):
        check_graph_steps(recipe, path.name)
    if quantized:
        model = read_quantized(path)
        check_decided(model, settings)
        check_grids(model, settings)
        if recipe is not None:
            check_order(recipe.graph_steps, settled_in(model.draft))


def _attack(given: Arguments) -> tuple[Images, ...]:
    try:
        check_forms(given["on"], ensemble=True)
    except OptionError as error:
        raise OptionError(f"on: {error}") from error
    _, attacks = chosen(given["protocol"], given["attack"])
    given["threat"].model()
    for metric in given["metric"]:
        METRICS.build(metric)
    need_gradients(attacks)
    check_pairs(given["on"], attacks)
    return _data(given)


def _compare(given: Arguments) -> tuple[Images, ...]:
    check_margin(given["max_drop"])
    _, attacks = chosen(given["protocol"], given["attack"])
    given["threat"].model()
    need_gradients(attacks)
    return _data(given)


def _bench(given: Arguments) -> tuple[Images, ...]:
    given["how"].sweep()
    return () if given["data"] is None else (Images("data", given["data"], 256, given["how"].seed, False),)


def _data(given: Arguments) -> tuple[Images, ...]:
    data: DataFlags = given["data"]
    if given["batch_size"] < 1:
        raise OptionError(f"batch-size must be at least 1, got {given['batch_size']}")
    if given["repeats"] < 1:
        raise OptionError(f"repeats must be at least 1, got {given['repeats']}")
    return (Images("data", data.data, data.samples, data.seed, data.download),)


MODELS: Mapping[str, Callable[[Arguments], Known]] = {"export": _compressed, "attack": _deployed}
CHECKS: Mapping[str, Callable[[Arguments], tuple[Images, ...]]] = {
    "attack": _attack,
    "compare": _compare,
    "bench": _bench,
}
