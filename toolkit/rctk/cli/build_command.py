"""``rctk build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rctk.cli.console import Bars
from rctk.cli.flags import InputFlags, Switch, Whole, whole
from rctk.cli.places import check_file, check_folder
from rctk.cli.plan_tables import show_record
from rctk.deployment import Deployment, open_deployment
from rctk_export.bundle import is_bundle
from rctk_export.engine import Source
from rctk_export.tensorrt.options import BuildOptions, Hardware, Rest, Typing
from rctk_export.tensorrt.record import PLAN, plan_path
from rctk_kernels.errors import OptionError

NO_INPUT_FLAGS = InputFlags()
DEFAULTS = BuildOptions()
BuiltRole = Literal["int8", "float", "evaluation"]
TENSORRT: Literal["tensorrt"] = "tensorrt"


def build_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    engine: Literal["tensorrt"] = TENSORRT,
    role: BuiltRole = "int8",
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    precision_rest: Rest = DEFAULTS.precision_rest,
    typing: Typing = DEFAULTS.typing,
    min_batch: Whole = DEFAULTS.min_batch,
    opt_batch: Whole = DEFAULTS.opt_batch,
    max_batch: Whole = DEFAULTS.max_batch,
    workspace_mib: Whole = DEFAULTS.workspace_mib,
    timing_cache: Path | None = None,
    optimization_level: Whole = DEFAULTS.optimization_level,
    hardware: Hardware = DEFAULTS.hardware,
    version_compatible: Switch = DEFAULTS.version_compatible,
    sparsity: Switch = DEFAULTS.sparsity,
    dla: Annotated[int | None, Parameter(converter=whole)] = DEFAULTS.dla,
    tf32: Switch = DEFAULTS.tf32,
    device: Whole = DEFAULTS.device,
    flags: InputFlags = NO_INPUT_FLAGS,
) -> None:
    """Build the plan of a bundle for the GPU of this machine, with a record that says where it is valid.

    Example: rctk build model-int8 --opt-batch 1 --max-batch 64

    Args:
        path: Bundle folder, or an .onnx file with --input.
        engine: For which engine.
        role: Which file of a bundle: the Q/DQ one for TensorRT, the float one, or the one that score attacks read.
        out: File for the plan; BUNDLE.plans/FILE.plan by default.
        precision_rest: Precision of everything that has no Q/DQ.
        typing: Strong takes every type from the file; weak lets TensorRT 10 choose.
        min_batch: Fewest images of a call.
        opt_batch: Images for which kernels are tuned; the batch that you will run.
        max_batch: Most images of a call; memory is planned for it.
        workspace_mib: Scratch memory that kernels may ask for, in MiB; 0 leaves it to TensorRT.
        timing_cache: File that keeps the times of kernels between builds on this machine.
        optimization_level: How long to look for fast kernels, 0 to 5.
        hardware: Which other GPUs the plan may run on; costs speed.
        version_compatible: Let other versions of the same major run the plan; costs speed.
        sparsity: Use 2:4 sparse kernels where the weights are sparse.
        dla: DLA core; layers that it cannot run go to the GPU.
        tf32: Let float32 products be rounded to 10 bits of mantissa.
        device: Number of the GPU.
        flags: Input of a bare file.
    """
    options = BuildOptions(
        precision_rest=precision_rest,
        typing=typing,
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch,
        workspace_mib=workspace_mib,
        optimization_level=optimization_level,
        hardware=hardware,
        version_compatible=version_compatible,
        sparsity=sparsity,
        dla=dla,
        tf32=tf32,
        device=device,
    )
    check_file(timing_cache, "--timing-cache")
    whole_bundle = is_bundle(path)
    with open_deployment(path, target=TENSORRT if whole_bundle else None, spec=flags.spec()) as deployment:
        source = _source(deployment, role)
        plan = out or (plan_path(source.path) if whole_bundle else path.with_suffix(PLAN))
        check_file(plan, "--out")
        check_folder(plan.parent, "--out")
        from rctk_export.tensorrt.make import make_plan  # noqa: PLC0415  # here TensorRT is imported

        with Bars().stage(f"build {engine}"):
            record = make_plan(source, plan, options, timing_cache)
    show_record(plan, record)
    chosen = f"{TENSORRT}:plan={plan}" if out or not whole_bundle else TENSORRT
    bare = "" if whole_bundle else " --input ..."
    print(f"plan: {plan}\nnext: rctk bench {path}{' --target tensorrt' if whole_bundle else bare} --engine {chosen}")


def _source(deployment: Deployment, role: BuiltRole) -> Source:
    if role == "int8":
        return deployment.deployed
    if role == "float":
        return deployment.need_float()
    if deployment.evaluation is None:
        raise OptionError(f"{deployment.name} has no evaluation file: its logits are not rounded; leave --role away")
    return deployment.evaluation
