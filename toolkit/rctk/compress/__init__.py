"""Compression steps by name: training, pruning and distillation of a module, then quantization of its graph."""

from __future__ import annotations

from rctk.compress.step import Step
from rctk_export.registry import Family

STEPS: Family[Step] = Family(
    "step",
    {
        "quant.ptq_static8": "rctk.quantize.ptq_static8:PtqStatic8",
        "quant.equalize": "rctk.quantize.equalize:Equalize",
        "quant.absorb_bias": "rctk.quantize.absorb_bias:AbsorbBias",
        "quant.bias_correction": "rctk.quantize.bias_correction:BiasCorrection",
        "quant.seqmse": "rctk.quantize.seqmse:SeqMse",
        "quant.adaround": "rctk.quantize.adaround:AdaRound",
        "quant.pwlq": "rctk.quantize.pwlq:Pwlq",
        "quant.ptq_dynamic8": "rctk.quantize.dynamic8:PtqDynamic8",
        "quant.weight_only": "rctk.quantize.weight_only:WeightOnly",
        "quant.layer_bits": "rctk.quantize.layer_bits:LayerBits",
        "quant.mixed": "rctk.quantize.mixed:Mixed",
        "quant.qat_ste": "rctk.qat.ste:QatSte",
        "quant.lsq": "rctk.qat.lsq:Lsq",
        "quant.lsq_plus": "rctk.qat.lsq_plus:LsqPlus",
        "quant.pact": "rctk.qat.pact:Pact",
        "quant.dorefa": "rctk.qat.dorefa:Dorefa",
        "quant.bnn": "rctk.qat.bnn:Bnn",
        "quant.xnor": "rctk.qat.xnor:Xnor",
        "quant.binaryconnect": "rctk.qat.binaryconnect:BinaryConnect",
        "quant.twn": "rctk.qat.twn:Twn",
        "quant.inq": "rctk.qat.inq:Inq",
        "prune.depgraph": "rctk.prune.depgraph:DepGraph",
        "prune.dns": "rctk.prune.dns:Dns",
        "prune.iterative": "rctk.prune.iterative:Iterative",
        "prune.layers": "rctk.prune.layers:Layers",
        "prune.magnitude": "rctk.prune.magnitude:Magnitude",
        "prune.nm24": "rctk.prune.nm24:Nm24",
        "prune.slimming": "rctk.prune.slimming:Slimming",
        "prune.sss": "rctk.prune.sss:Sss",
        "distill.ard": "rctk.distill.ard:Ard",
        "distill.defensive": "rctk.distill.defensive:Defensive",
        "distill.kd": "rctk.distill.kd:Kd",
        "distill.rslad": "rctk.distill.rslad:Rslad",
        "train.finetune": "rctk.train.finetune:Finetune",
        "train.rst": "rctk.train.rst:Rst",
    },
    listed="steps",
)
