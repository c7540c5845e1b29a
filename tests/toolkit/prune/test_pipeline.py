"""A pruned network goes the way of any other: checkpoint, bundle, engine, attack."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rctk.attacks.pgd import PGD
from rctk.checkpoint import load_model, save_checkpoint
from rctk.compress import STEPS
from rctk.exporting.export import ExportSettings, export_int8
from rctk.exporting.float_model import read_float_model
from rctk.inspection import graph_facts
from rctk.models import arch_of
from rctk.prune.cost import cost
from rctk.threat import ThreatModel
from rctk_export.engines.onnxruntime import OnnxRuntime
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import load_onnx

pytest.importorskip("onnxruntime")
CIFAR = InputSpec(channels=3, height=32, width=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_a_pruned_network_is_exported_run_and_attacked(network, context, tmp_path):
    module = network("resnet20")
    for text in (
        "prune.layers:blocks=2,images=8",
        "prune.depgraph:ratio=0.5,round_to=4,min_channels=4",
        "prune.nm24:skip=linear",
    ):
        module = STEPS.build(text)(module, context)
    path = tmp_path / "small.pt"
    arch = arch_of(module, "resnet20", classes=10, input=CIFAR)
    save_checkpoint(path, module, arch=arch, input=CIFAR, classes=tuple("0123456789"))

    settings = ExportSettings(targets=("cpu",), calibration_samples=16, check_samples=8, allow_mismatch=True)
    bundle = export_int8(read_float_model(path), context.train, tmp_path / "bundle", settings)
    source = bundle.source("int8", "cpu")
    facts = graph_facts(load_onnx(source.path), "cpu")
    assert facts.macs == cost(module, CIFAR).macs
    assert facts.findings == ()
    images = context.train.images[:8]
    with OnnxRuntime().open(source) as engine, torch.no_grad():
        logits = module((torch.from_numpy(images) - 0.5) / 0.25).numpy()
        assert np.corrcoef(engine.predict(images).ravel(), logits.ravel())[0, 1] > 0.95

    loaded = load_model(path).module

    def model(x):
        return loaded((x - 0.5) / 0.25)

    x, y = torch.from_numpy(images), torch.from_numpy(logits.argmax(axis=1))
    adversarial = PGD(steps=3)(model, x, y, ThreatModel(eps=8 / 255), torch.Generator().manual_seed(0))
    assert float((adversarial - x).abs().max()) <= 8 / 255 + 1e-6
    assert (model(adversarial).argmax(dim=1) != y).any()
