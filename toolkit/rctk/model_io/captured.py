"""Models that bring their own graph: TorchScript and ``torch.export``. Loading either runs code: trusted input."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from rctk.model_io.forms import damaged
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import ModelError


class CapturedModule(nn.Module):
    """A captured graph as a module that is always in evaluation mode, as it was when it was captured."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program.module()  # not `graph`, which torch.fx uses itself
        self.training = False

    def train(self, mode: bool = True) -> CapturedModule:  # noqa: ARG002  a captured graph has one mode
        """Return the module unchanged."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images ``(N, C, H, W)`` to logits ``(N, K)``."""
        return self.program(x)  # type: ignore[no-any-return]


def read_pt2(path: Path, spec: InputSpec | None) -> CapturedModule:
    """Return the program that ``torch.export.save`` put into ``path``."""
    try:
        program = torch.export.load(path)
    except Exception as error:  # json, zip, schema and operator errors of every kind
        raise damaged(path, error) from error
    images = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(images) != 1 or images[0].ndim != 4:
        shapes = ", ".join(str(tuple(image.shape)) for image in images)
        raise ModelError(f"{path} takes {len(images)} inputs ({shapes}), expected one of shape (N, C, H, W); wrap it")
    batch, *shape = images[0].shape
    if isinstance(batch, int):
        raise ModelError(
            f"{path} was exported for a batch of exactly {batch}; export it again with "
            "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        )
    written = "x".join(str(size) for size in shape)
    if spec is None:
        raise ModelError(
            f"{path} does not say how its images are normalised; give --input {written} --mean ... --std ..."
        )
    if any(isinstance(size, int) and size != given for size, given in zip(shape, spec.shape, strict=True)):
        raise ModelError(f"{path} takes images {written}, got --input {'x'.join(map(str, spec.shape))}")
    return CapturedModule(program)


def read_torchscript(path: Path, spec: InputSpec) -> CapturedModule:
    """Return the graph that ``torch.jit.save`` put into ``path``, as ``torch.export`` would have captured it."""
    from torch._export.converter import TS2EPConverter  # noqa: PLC0415  torch.export's error names this way

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; files made with it remain
        try:
            script = torch.jit.load(path, map_location="cpu")
        except Exception as error:
            raise damaged(path, error) from error
        script.eval().float()
        images = torch.zeros(2, *spec.shape)
        try:
            script(images)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise ModelError(f"{path} does not run on images {tuple(images.shape)}: {reason}; check --input") from error
        try:
            return CapturedModule(TS2EPConverter(script, (images,)).convert())
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{path} is TorchScript that torch cannot turn into an exported program ({type(error).__name__}: "
                f"{reason}); export it to ONNX where it was made and give the .onnx file"
            ) from error
