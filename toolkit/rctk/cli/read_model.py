"""A model file in any form that the workstation's commands take."""

from __future__ import annotations

from pathlib import Path

from rctk.checkpoint import load_model
from rctk.cli.flags import ModelFlags
from rctk.exporting.by_recipe import Model
from rctk.exporting.float_model import read_float_model
from rctk.exporting.quantized_checkpoint import holds_quantized, read_quantized
from rctk_kernels.errors import OptionError

NO_MODEL_FLAGS = ModelFlags()


def read_model(path: Path, flags: ModelFlags) -> Model:
    """Read a torch model, a float ``.onnx``, or a quantized checkpoint, which needs no flags and takes none."""
    if path.suffix == ".onnx":
        return read_float_model(path, input=flags.spec())
    if not holds_quantized(path):
        return load_model(
            path, arch=flags.arch, input=flags.spec(), classes=flags.classes, trust_pickle=flags.trust_pickle
        )
    if flags != NO_MODEL_FLAGS:
        raise OptionError(
            f"{path} holds its own graph and input; leave --arch, --input, --mean, --std and --classes out"
        )
    return read_quantized(path)
