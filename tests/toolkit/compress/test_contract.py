"""What every step of the table keeps; a new row joins by itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rctk.checkpoint import LoadedModel
from rctk.compress import STEPS
from rctk.compress.draft_file import draft_contents, draft_digest, draft_of
from rctk.compress.kept import save_compressed
from rctk.compress.recipe import Named, Recipe
from rctk.compress.step import Context, Draft, GraphStep, ModuleStep
from rctk.data import read_split
from rctk.exporting.files import int8_files
from rctk.model_io.tensors import read_tensors, write_tensors
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk.records import plain
from rctk_export.capture import capture
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import serialize
from rctk_export.onnx_module import OnnxModule
from rctk_kernels.errors import OptionError

ARCH = "resnet20-b:depth=8"
SPEC = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.4,))
QUICK = {
    "quant.adaround": "iterations=30,samples=64",
    "quant.layer_bits": "layer=conv1,weight_bits=7",
    "quant.mixed": "samples=32",
    "quant.seqmse": "samples=64",
    "quant.binaryconnect": "epochs=3,batch_size=25",
    "quant.bnn": "activations=4,epochs=4,batch_size=25",
    "quant.dorefa": "epochs=3,batch_size=25",
    "quant.xnor": "activations=4,epochs=4,batch_size=25",
    "train.finetune": "epochs=1",
    "train.rst": "extra=digits:train,epochs=1,steps=1",
    "prune.depgraph": "ratio=0.1,round_to=1",
    "prune.dns": "epochs=2,deviations=0",
    "prune.iterative": "ratio=0.5,rounds=2",
    "prune.slimming": "sparse_epochs=1,ratio=0.1,round_to=1",
    "prune.sss": "epochs=2",
    "distill.defensive": "epochs=1",
    "distill.kd": "epochs=1",
    "distill.ard": "epochs=1,steps=1",
    "distill.rslad": "epochs=1,steps=1",
}
"""Settings that make a step short and mild; a step that is not here runs with its defaults."""
LEAST = 0.8
"""Accuracy of an int8 file behind any graph step; the float net has more than 0.9."""
CHANCE = 0.1


def step_of(name):
    return STEPS.build(f"{name}:{QUICK[name]}" if name in QUICK else name)


MODULE_STEPS = [name for name in STEPS.names() if step_of(name).kind == "module"]
GRAPH_STEPS = [name for name in STEPS.names() if step_of(name).kind == "graph"]


@pytest.fixture(scope="module")
def net():
    """A residual net with BatchNorm that knows most digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_architecture(ARCH, classes=10, input=SPEC)
        split = read_split("digits:train").sample(600, 0)
        x, y = torch.from_numpy((split.images - 0.3) / 0.4), torch.from_numpy(split.labels)
        optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
        for _ in range(4):
            for rows in torch.randperm(len(x)).split(50):
                optimizer.zero_grad()
                F.cross_entropy(module(x[rows]), y[rows]).backward()
                optimizer.step()
    return module.eval().requires_grad_()


@pytest.fixture(scope="module")
def context(net):
    split = read_split("digits:train").sample(400, 1)
    held = np.arange(0, 400, 8)
    rest = np.setdiff1d(np.arange(400), held)
    return Context(train=split.take(rest), validation=split.take(held), input=SPEC, parent=copy.deepcopy(net))


@pytest.fixture(scope="module")
def draft(net):
    return Draft(model=capture(net, SPEC), input=SPEC)


@pytest.fixture(scope="module")
def changed(net, context):
    """Run a module step on a copy, once for all tests, or ``again``."""

    @functools.cache
    def run(name, again=False):
        return step_of(name)(copy.deepcopy(net), dataclasses.replace(context, progress=Silent()))

    return run


@pytest.fixture(scope="module")
def decided(draft, context):
    """Run a graph step, once for all tests, or ``again``."""

    @functools.cache
    def run(name, again=False):
        return step_of(name)(draft, dataclasses.replace(context, progress=Silent()))

    return run


@pytest.mark.parametrize("name", STEPS.names())
def test_a_step_is_a_frozen_dataclass_that_says_what_it_is(name):
    step = step_of(name)
    assert step.kind in {"module", "graph"}
    assert isinstance(step, (ModuleStep, GraphStep))
    assert type(step).__dataclass_params__.frozen
    assert STEPS.load(name).__doc__.splitlines()[0].strip()


@pytest.mark.parametrize("name", STEPS.names())
def test_a_step_is_built_from_its_name_alone_or_names_what_it_needs(name):
    required = [each.name for each in dataclasses.fields(STEPS.load(name)) if each.default is dataclasses.MISSING]
    if required:
        with pytest.raises(OptionError, match=f"{name} needs {required[0]}"):
            STEPS.build(name)
    else:
        assert type(STEPS.build(name)) is STEPS.load(name)


@pytest.mark.parametrize("name", STEPS.names())
def test_a_step_can_be_recorded_and_sent(name):
    step = step_of(name)
    assert pickle.loads(pickle.dumps(step)) == step
    recipe = Recipe.of([{name: QUICK.get(name)}])
    recorded = recipe.as_list()[0]
    assert json.loads(json.dumps(plain(recorded, name))) == json.loads(json.dumps(recorded))
    assert recorded["step"] == name
    assert set(recorded) - {"step"} == {field.name for field in dataclasses.fields(step)}


@pytest.mark.parametrize("name", STEPS.names())
def test_settings_are_read_from_text_as_they_are_printed(name):
    recipe = Recipe.of([{name: QUICK.get(name)}])
    settings = {key: value for key, value in recipe.as_list()[0].items() if key != "step"}
    assert Recipe.of([{name: settings}]) == recipe


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "train.trades:beta=6",
            "train.trades is an objective and no step; write train.finetune:objective=train.trades",
        ),
        ("train.qat_at", "write quant.lsq:objective=train.qat_at"),
        ("prune.expected_abs", "a criterion and no step; write prune.depgraph:criterion=expected-abs"),
        ("quant.percentile", "a calibrator and no step; write quant.ptq_static8:calibrator=percentile"),
    ],
)
def test_a_part_of_a_step_is_answered_with_the_step(name, written):
    with pytest.raises(OptionError, match=written):
        Recipe.of([name])
    assert Recipe.of([written.partition("write ")[2]])


@pytest.mark.parametrize("name", MODULE_STEPS)
def test_a_module_step_returns_a_classifier_in_evaluation_mode(name, changed, context):
    module = changed(name)
    assert not any(part.training for part in module.modules())
    images = (torch.from_numpy(context.validation.images) - 0.3) / 0.4
    with torch.no_grad():
        logits = module(images)
        alone = module(images[:1])
    assert logits.shape == (len(images), 10)
    assert torch.isfinite(logits).all()
    assert torch.allclose(alone, logits[:1], atol=1e-4)
    right = (logits.argmax(1).numpy() == context.validation.labels).mean()
    assert right > 2 * CHANCE


@pytest.mark.parametrize("name", MODULE_STEPS)
def test_a_module_step_changes_something_and_no_random_state(name, changed, net):
    before = torch.get_rng_state()
    after = changed(name, again=True).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    own = net.state_dict()
    assert any(key not in after or not torch.equal(after[key], value) for key, value in own.items())


@pytest.mark.parametrize("name", MODULE_STEPS)
def test_a_module_step_repeats_with_the_same_seed(name, changed):
    one, two = changed(name).state_dict(), changed(name, again=True).state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", MODULE_STEPS)
def test_a_checkpoint_holds_what_a_module_step_made(name, changed, tmp_path):
    own = {"arch": ARCH, "input": SPEC, "classes": tuple("0123456789")}
    model = LoadedModel(module=changed(name), source="net.pt", sha256="", form="checkpoint", **own)
    saved = save_compressed(tmp_path / "a.pt", model, [Named(name=name, step=step_of(name))])
    assert saved.arch.removeprefix("pruned:") == ARCH


@pytest.mark.parametrize("name", MODULE_STEPS)
def test_a_module_step_leaves_the_parent(name, changed, context, net):
    changed(name)
    own = net.state_dict()
    assert all(torch.equal(own[key], value) for key, value in context.parent.state_dict().items())


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_a_graph_step_leaves_the_draft(name, draft, decided):
    before, formats = serialize(draft.model), str(draft.formats)
    decided(name, again=True)
    assert serialize(draft.model) == before
    assert str(draft.formats) == formats
    assert draft.facts == {}


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_a_graph_step_notes_what_it_did(name, decided):
    facts = decided(name).facts
    assert list(facts) == [name]
    assert json.loads(json.dumps(plain(dict(facts), name)))


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_a_graph_step_repeats_with_the_same_seed(name, decided):
    one, two = decided(name), decided(name, again=True)
    assert serialize(one.model) == serialize(two.model)
    assert str(one.formats) == str(two.formats)
    assert plain(dict(one.facts), name) == plain(dict(two.facts), name)


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_int8_files_behind_a_graph_step_still_classify(name, decided, context):
    (file,) = int8_files(decided(name), ["cpu"], context.train.sample(128, 0), Silent())
    test = read_split("digits:test").sample(200, 0)
    with torch.no_grad():
        found = OnnxModule(file.model)(torch.from_numpy(test.images)).argmax(1).numpy()
    assert (found == test.labels).mean() > LEAST


@pytest.mark.parametrize("name", GRAPH_STEPS)
def test_a_file_holds_what_a_graph_step_decided(name, decided, context, tmp_path):
    made = decided(name)
    header, tensors = draft_contents(made)
    write_tensors(tmp_path / "a.pt", {"draft": header}, tensors)
    read, found = read_tensors(tmp_path / "a.pt")
    back = draft_of(read["draft"], found, tmp_path / "a.pt")
    assert draft_digest(back) == draft_digest(made)
    images = context.train.sample(64, 0)
    (one,), (two,) = (int8_files(each, ["cpu"], images, Silent()) for each in (made, back))
    assert serialize(one.model) == serialize(two.model)
    assert plain(one.facts, name) == plain(two.facts, name)
