"""Which orders of steps are refused when the recipe is read, and which are not."""

from __future__ import annotations

import pytest

from rctk.compress.recipe import Recipe
from rctk_kernels.errors import OptionError

REFUSED = [
    ("weight_only:bits=2", "ptq_static8:activation_bits=4", "ptq_static8 chooses formats that quant.weight_only"),
    ("ptq_static8:weight_bits=4", "ptq_dynamic8", "ptq_dynamic8 chooses formats that quant.ptq_static8"),
    ("ptq_dynamic8", "weight_only", "weight_only chooses formats that quant.ptq_dynamic8"),
    ("mixed", "ptq_static8", "ptq_static8 chooses formats that quant.mixed"),
    ("layer_bits:layer=a,weight_bits=4", "ptq_static8", "put it in front of quant.layer_bits"),
    ("seqmse", "weight_only:bits=2", "quant.seqmse has fixed codes or scales already; put quant.weight_only in front"),
    ("lsq", "ptq_static8", "quant.lsq has fixed codes or scales already; put quant.ptq_static8 in front"),
    ("adaround", "layer_bits:layer=a,weight_bits=4", "put quant.layer_bits in front"),
    ("seqmse", "equalize", "equalize changes the weights, but quant.seqmse"),
    ("lsq", "absorb_bias", "absorb_bias changes the weights, but quant.lsq"),
    ("lsq", "pact", "pact fixes codes or scales, and quant.lsq has done so"),
    ("lsq", "adaround", "adaround fixes codes, and quant.lsq has done so"),
    ("adaround", "seqmse", "seqmse fixes codes or scales, and quant.adaround has done so"),
    ("seqmse", "pwlq", "pwlq fixes codes or scales, and quant.seqmse has done so"),
    ("ptq_static8:weight_bits=3", "pwlq", "pwlq has a width of its own; leave weight_bits out of quant.ptq_static8"),
    ("weight_only", "pwlq", "pwlq is for static int8, and quant.weight_only writes a weight-only file"),
    ("pwlq", "adaround", "adaround fixes codes, and quant.pwlq has done so"),
    ("bias_correction", "adaround", "mends biases for the codes as they are; put quant.adaround in front"),
    ("bias_correction", "ptq_static8", "put quant.ptq_static8 in front"),
    ("ptq_static8:weight_bits=2", "lsq", "lsq has widths of its own; leave out quant.ptq_static8"),
    ("layer_bits:layer=a,weight_bits=4", "lsq", "lsq has widths of its own; leave out quant.layer_bits"),
    ("weight_only", "lsq", "lsq is for static int8, and quant.weight_only writes a weight-only file"),
    ("ptq_dynamic8", "mixed", "mixed is for static int8, and quant.ptq_dynamic8 writes a dynamic file"),
    ("ptq_dynamic8", "adaround", "adaround has no effect in a dynamic file"),
    ("ptq_dynamic8", "bias_correction", "bias_correction has no effect in a dynamic file"),
]
ALLOWED = [
    ("quant.ptq_static8:weight_bits=4", "quant.equalize", "quant.seqmse", "quant.adaround", "quant.bias_correction"),
    ("quant.weight_only:bits=4", "quant.layer_bits:layer=a,weight_bits=8", "quant.seqmse", "quant.adaround"),
    ("quant.ptq_static8:calibrator=mse", "quant.lsq", "quant.bias_correction"),
    ("quant.ptq_static8", "quant.layer_bits:layer=a,weight_bits=4", "quant.layer_bits:layer=b,weight_bits=4"),
    ("quant.ptq_static8", "quant.mixed", "quant.adaround"),
    ("quant.equalize", "quant.ptq_dynamic8"),
    ("quant.ptq_static8:activation_bits=4", "quant.pwlq", "quant.bias_correction"),
    ("prune.depgraph", "prune.nm24", "train.finetune", "quant.lsq"),
    ("prune.nm24", "prune.layers", "train.finetune"),
]


@pytest.mark.parametrize(("first", "second", "words"), REFUSED)
def test_a_step_that_would_undo_another_is_refused_with_the_recipe(first, second, words):
    with pytest.raises(OptionError, match=words):
        Recipe.of([f"quant.{first}", f"quant.{second}"])


@pytest.mark.parametrize("step", ["prune.depgraph", "prune.slimming"])
def test_channels_are_removed_before_a_pattern_is_made(step):
    with pytest.raises(OptionError, match=rf"{step} removes channels.*2:4 pattern of prune\.nm24; put {step} in front"):
        Recipe.of(["prune.nm24", "train.finetune", step])


@pytest.mark.parametrize("steps", ALLOWED, ids="-".join)
def test_orders_that_undo_nothing_are_free(steps):
    assert len(Recipe.of(steps).steps) == len(steps)
