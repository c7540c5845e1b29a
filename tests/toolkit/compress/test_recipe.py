"""Recipes as text, and how they are run, stopped and gone on with."""

from __future__ import annotations

import copy
import dataclasses
import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from rctk.checkpoint import load_model, save_checkpoint
from rctk.compress.apply import apply_graph_steps, apply_recipe
from rctk.compress.draft_file import draft_digest
from rctk.compress.recipe import Recipe, read_recipe
from rctk.compress.step import Context, Draft
from rctk.data.split import Split
from rctk.models import build_architecture
from rctk.progress import Silent
from rctk_export.input_spec import InputSpec
from rctk_export.quantize.formats import Weight
from rctk_export.registry import Family
from rctk_kernels.errors import ModelError, OptionError

SPEC = InputSpec(channels=1, height=8, width=8)
CALLS: list[str] = []
"""Which steps have run in this test."""


@dataclass(frozen=True, kw_only=True)
class Shake:
    """Adds noise to every weight."""

    kind: ClassVar[Literal["module"]] = "module"
    size: float = 0.1
    layer: Literal["all", "last"] = "all"
    twice: bool = False
    notes: str = ""

    def __post_init__(self):
        if self.size < 0:
            raise OptionError(f"shake needs size >= 0, got {self.size}")

    def __call__(self, module, context):
        CALLS.append(f"shake {self.size}")
        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=self.size)
        return module


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """Keeps the first units of the first hidden layer."""

    kind: ClassVar[Literal["module"]] = "module"
    units: int = 4

    def __call__(self, module, context):
        CALLS.append("narrow")
        first, second = module[1], module[3]
        one, two = nn.Linear(first.in_features, self.units), nn.Linear(self.units, second.out_features)
        one.load_state_dict({"weight": first.weight[: self.units], "bias": first.bias[: self.units]})
        two.load_state_dict({"weight": second.weight[:, : self.units], "bias": second.bias})
        module[1], module[3] = one, two
        return module


@dataclass(frozen=True, kw_only=True)
class Break:
    """Stops as Ctrl-C does, in training mode and with a file of its own."""

    kind: ClassVar[Literal["module"]] = "module"

    def __call__(self, module, context):
        CALLS.append("break")
        context.folder.mkdir(parents=True)
        (context.folder / "own").write_text("kept")
        module.train()
        raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Hide:
    """Does what no state dict shows."""

    kind: ClassVar[Literal["module"]] = "module"
    how: Literal["hook", "layer", "nan"] = "hook"

    def __call__(self, module, context):
        if self.how == "nan":
            module[1].weight.data[0, 0] = float("nan")
        elif self.how == "layer":
            module[1] = nn.Bilinear(2, 2, 2)
        else:
            module.register_forward_hook(lambda _module, _given, out: out + 1)
        return module


@dataclass(frozen=True, kw_only=True)
class Parent:
    """Becomes what the recipe began with."""

    kind: ClassVar[Literal["module"]] = "module"

    def __call__(self, module, context):
        module.load_state_dict(context.parent.state_dict())
        return module


@dataclass(frozen=True, kw_only=True)
class Needy:
    """Cannot do without two words."""

    kind: ClassVar[Literal["module"]] = "module"
    one: str
    two: str


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Notes a word."""

    kind: ClassVar[Literal["graph"]] = "graph"
    word: str = "nothing"

    def __call__(self, draft, context):
        CALLS.append(f"remark {self.word}")
        return draft.noted("test.remark", word=self.word, before=list(draft.facts))


TABLE = {
    "test.shake": Shake,
    "test.narrow": Narrow,
    "test.break": Break,
    "test.hide": Hide,
    "test.parent": Parent,
    "test.needy": Needy,
}


class Steps(Family):
    """A table of the steps above."""

    def load(self, name):
        return {**TABLE, "test.remark": Remark}.get(name) or super().load(name)

    def names(self):
        return [*TABLE, "test.remark"]


@pytest.fixture(autouse=True)
def steps(monkeypatch):
    CALLS.clear()
    monkeypatch.setattr("rctk.compress.recipe.STEPS", Steps("step", {}))


@pytest.fixture
def model(tmp_path):
    module = build_architecture("mlp:hidden=8,layers=2", classes=3, input=SPEC)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    save_checkpoint(tmp_path / "net.pt", module, arch="mlp:hidden=8,layers=2", input=SPEC, classes=("a", "b", "c"))
    return load_model(tmp_path / "net.pt")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Split(
        name="noise", images=rng.random((12, 1, 8, 8), dtype=np.float32), labels=np.arange(12, dtype=np.int64) % 3
    )


@pytest.fixture
def context(images, tmp_path):
    return Context(
        train=images, validation=images.take(np.arange(3)), input=SPEC, progress=Silent(), folder=tmp_path / "work"
    )


def same(first, second):
    one, two = first.module.state_dict(), second.module.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


# reading


def test_text_and_mappings_say_the_same(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "- test.shake:size=8/255,layer=last\n"
        "- test.shake: {size: 8/255, layer: last}\n"
        "- test.shake: size=8/255,layer=last\n"
        "- test.shake: {size: 1e-3, twice: yes}\n"
        "- test.shake:\n"
        "- test.narrow\n"
    )
    one, two, three, four, five, six = (named.step for named in Recipe.read(path).steps)
    assert one == two == three == Shake(size=8 / 255, layer="last")
    assert four == Shake(size=0.001, twice=True)
    assert (five, six) == (Shake(), Narrow())


def test_a_setting_may_be_a_method_with_settings_of_its_own():
    nested = {"test.shake": {"notes": {"train.pgd_at": {"eps": "8/255", "steps": 7}}}}
    assert Recipe.of([nested]).steps[0].step.notes == "train.pgd_at:eps=8/255,steps=7"
    commas = {"test.shake": {"notes": "train.pgd_at:eps=8/255,steps=7"}}
    assert Recipe.of([commas]) == Recipe.of([nested])


def test_a_recipe_says_every_setting():
    assert Recipe.of(["test.shake:size=2", "test.remark"]).as_list() == [
        {"step": "test.shake", "size": 2.0, "layer": "all", "twice": False, "notes": ""},
        {"step": "test.remark", "word": "nothing"},
    ]


def test_a_step_without_settings_is_a_name_or_an_empty_mapping():
    plain = Recipe.of(["test.shake"])
    assert Recipe.of([{"test.shake": None}]) == Recipe.of([{"test.shake": {}}]) == Recipe.of([" test.shake "]) == plain


def test_kinds_are_kept_apart_in_order():
    recipe = Recipe.of(["test.shake", "test.narrow", "test.remark"])
    assert [step.name for step in recipe.module_steps] == ["test.shake", "test.narrow"]
    assert [step.name for step in recipe.graph_steps] == ["test.remark"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the recipe has no steps"),
        (["test.shake", "test.shak:size=1"], r"step 2 of the recipe: unknown step 'test.shak'; did you mean 'test.sh"),
        (["test.shake:sise=1"], "step 1 of the recipe: unknown setting of test.shake 'sise'; did you mean 'size'"),
        (["test.shake:size=big"], "step 1 of the recipe: test.shake:size: 'big' is not a number"),
        (["test.needy"], "step 1 of the recipe: test.needy needs one and two; write test.needy:one="),
        (["test.needy:one=1"], "step 1 of the recipe: test.needy needs two; write test.needy:two="),
        (["test.shake:size=-1"], "step 1 of the recipe: test.shake: shake needs size >= 0"),
        (["test.shake:size=1,size=2"], "step 1 of the recipe: 'test.shake:size=1,size=2' sets size twice"),
        (["test.shake:"], "step 1 of the recipe: a setting is missing .*; write test.shake, or add"),
        (["test.remark", "test.shake"], "move test.shake before test.remark"),
        ([{"test.shake": {}, "test.narrow": {}}], "step 1 of the recipe: cannot read"),
        ([["test.shake"]], "cannot read"),
        ([None], "cannot read None"),
        ([{"test.shake": 3}], "cannot read"),
        ([{"test.shake": {"size": [1, 2]}}], "write a number, a word"),
        ([{"test.shake": {"notes": {"a": {"b": {"c": {"d": [1]}}}}}}], "write a number, a word"),
    ],
)
def test_a_wrong_recipe_is_refused_as_a_whole(entries, message):
    with pytest.raises(OptionError, match=message):
        Recipe.of(entries)
    assert CALLS == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [test.shake]", "holds no list of steps"),
        ("", "holds no list"),
        ("- [", "is not YAML"),
        ("- !!python/object/apply:os.getcwd []", "is not YAML"),
        ("\x00", "is not YAML"),
        ("- &a [*a]", "is not YAML"),
        ("- test.shake: {size: 0.1, size: 0.2}", "line 1: the key size stands twice"),
        ("[]", "has no steps"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message) as caught:
        Recipe.read(path)
    assert "\n" not in str(caught.value)


def test_a_method_without_settings_may_be_written_as_a_mapping():
    with_mapping, plain = Recipe.of([{"test.shake": {"notes": {"word": {}}}}]), Recipe.of(["test.shake:notes=word"])
    assert with_mapping == plain


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"no\.yaml: No such file"):
        Recipe.read(tmp_path / "no.yaml")


def test_steps_come_from_one_place(tmp_path):
    assert read_recipe(None, []) is None
    assert read_recipe(None, ["test.shake"]) == Recipe.of(["test.shake"])
    with pytest.raises(OptionError, match="put all of them into one"):
        read_recipe(tmp_path / "r.yaml", ["test.shake"])


# running


def test_steps_run_in_order_on_a_copy(model, context):
    before = copy.deepcopy(model.module.state_dict())
    done = apply_recipe(model, Recipe.of(["test.shake:size=0.2,layer=last", "test.narrow"]), context)
    assert CALLS == ["shake 0.2", "narrow"]
    assert done.module[1].out_features == 4
    assert done.arch == "pruned:mlp:hidden=8,layers=2"
    assert not done.module.training
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
    assert context.progress.notes == [
        "step 1 of 2: test.shake:size=0.2,layer=last",
        "step 2 of 2: test.narrow",
    ]


def test_without_a_folder_the_result_is_the_same(model, context):
    recipe = Recipe.of(["test.shake", "test.narrow", "test.shake:size=0.2"])
    assert same(
        apply_recipe(model, recipe, dataclasses.replace(context, folder=None)), apply_recipe(model, recipe, context)
    )


def test_a_finished_recipe_is_read_back(model, context):
    recipe = Recipe.of(["test.shake", "test.narrow", "test.shake:size=0.2"])
    first = apply_recipe(model, recipe, context)
    CALLS.clear()
    again = apply_recipe(model, recipe, context)
    assert CALLS == []
    assert same(first, again)
    assert len(list(context.folder.iterdir())) == 3
    assert "(kept from an earlier run)" in context.progress.notes[-1]


def test_ctrl_c_leaves_finished_steps_and_what_a_step_keeps(model, context):
    with pytest.raises(KeyboardInterrupt):
        apply_recipe(model, Recipe.of(["test.shake", "test.break"]), context)
    kept, scratch = sorted(context.folder.iterdir(), key=Path.is_dir)
    assert load_model(kept).extra["recipe"][0]["step"] == "test.shake"
    assert (scratch / "own").read_text() == "kept"


def test_a_stopped_recipe_goes_on_with_the_same_result(model, context):
    recipe = Recipe.of(["test.shake", "test.narrow", "test.shake:size=0.2"])
    through = apply_recipe(model, recipe, context)
    *_, last = sorted(context.folder.iterdir())
    last.unlink()
    CALLS.clear()
    assert same(apply_recipe(model, recipe, context), through)
    assert CALLS == ["shake 0.2"]


def test_a_changed_recipe_begins_at_the_first_change(model, context):
    apply_recipe(model, Recipe.of(["test.shake", "test.narrow", "test.shake:size=0.2"]), context)
    CALLS.clear()
    apply_recipe(model, Recipe.of(["test.shake", "test.narrow:units=3", "test.shake:size=0.2"]), context)
    assert CALLS == ["narrow", "shake 0.2"]


@pytest.mark.parametrize("change", ["seed", "train", "validation", "model"])
def test_nothing_is_reused_under_other_conditions(change, model, context, images):
    recipe = Recipe.of(["test.shake"])
    apply_recipe(model, recipe, context)
    other = images.take(np.arange(1, 12))
    if change == "model":
        model = dataclasses.replace(model, sha256="0" * 64)
    else:
        context = dataclasses.replace(context, **{change: 1 if change == "seed" else other})
    apply_recipe(model, recipe, context)
    assert CALLS == ["shake 0.1", "shake 0.1"]


def test_a_file_that_a_setting_names_is_part_of_the_conditions(model, context, tmp_path):
    file = tmp_path / "teacher.pt"
    recipe = Recipe.of([{"test.shake": {"notes": str(file)}}])
    for content in ("one", "one", "two"):
        file.write_text(content)
        apply_recipe(model, recipe, context)
    assert CALLS == ["shake 0.1", "shake 0.1"]


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_checkpoint_is_made_again(damage, model, context):
    recipe = Recipe.of(["test.shake"])
    through = apply_recipe(model, recipe, context)
    (path,) = context.folder.iterdir()
    if damage == "other":
        shutil.copy(model.source, path)
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "cut" else 0])
    assert same(apply_recipe(model, recipe, context), through)
    assert CALLS == ["shake 0.1", "shake 0.1"]


def test_a_kept_file_cannot_name_code_to_run(model, context, tmp_path):
    recipe = Recipe.of(["test.shake"])
    apply_recipe(model, recipe, context)
    (path,) = context.folder.iterdir()
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(): ...\n")
    torch.save({**torch.load(path), "arch": f"{code}:net"}, path)
    apply_recipe(model, recipe, context)
    assert not (tmp_path / "ran").exists()
    assert len(CALLS) == 2


def test_steps_see_the_module_that_entered(model, context):
    assert same(apply_recipe(model, Recipe.of(["test.shake", "test.parent"]), context), model)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("hook", "cannot hold what test.hide made of this module: logits differ by up to 1 "),
        ("layer", "cannot hold what test.hide made of this module: "),
        ("nan", "NaN or Inf"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_an_error(how, message, model, context):
    with pytest.raises(ModelError, match=message):
        apply_recipe(model, Recipe.of(["test.shake", f"test.hide:how={how}"]), context)
    assert len([path for path in context.folder.iterdir() if "hide" in path.name and how != "nan"]) == 0


def test_a_full_disk_is_one_line_and_keeps_finished_steps(model, context, monkeypatch):
    apply_recipe(model, Recipe.of(["test.shake"]), context)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rctk_export.whole_file.os.fsync", full)
    with pytest.raises(ModelError, match="No space left on device; nothing was changed"):
        apply_recipe(model, Recipe.of(["test.shake", "test.narrow"]), context)
    assert [path.name[:13] for path in context.folder.iterdir()] == ["01-test.shake"]


def test_a_captured_graph_has_no_steps(model, context):
    with pytest.raises(ModelError, match="brings its own graph"):
        apply_recipe(dataclasses.replace(model, form="pt2"), Recipe.of(["test.shake"]), context)


def test_an_architecture_in_a_file_is_read_again_where_the_user_named_it(context, tmp_path):
    code = tmp_path / "nets.py"
    code.write_text("from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n")
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    recipe = Recipe.of(["test.shake"])
    results = []
    for ending in ("", "", "\n"):
        code.write_text(code.read_text() + ending)
        own = load_model(tmp_path / "w.pt", arch=f"{code}:net", input=SPEC)
        results.append(apply_recipe(own, recipe, context))
    assert CALLS == ["shake 0.1", "shake 0.1"]  # the third time the code is not the same
    assert same(results[0], results[1])
    assert results[0].arch == f"{code}:net"


@pytest.fixture
def draft():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
    )
    return Draft(model=helper.make_model(graph), input=SPEC)


def test_graph_steps_follow(draft, context):
    done = apply_graph_steps(draft, Recipe.of(["test.shake", "test.remark:word=a", "test.remark:word=b"]), context)
    assert done.facts == {"test.remark": {"word": "b", "before": ["test.remark"]}}
    assert draft.facts == {}
    assert [note[:11] for note in context.progress.notes] == ["step 2 of 3", "step 3 of 3"]
    assert CALLS == ["remark a", "remark b"]


def test_finished_graph_steps_are_read_back(draft, context):
    recipe = Recipe.of(["test.remark:word=a", "test.remark:word=b"])
    first = apply_graph_steps(draft, recipe, context)
    CALLS.clear()
    assert draft_digest(apply_graph_steps(draft, recipe, context)) == draft_digest(first)
    assert CALLS == []
    apply_graph_steps(draft, Recipe.of(["test.remark:word=a", "test.remark:word=c"]), context)
    assert CALLS == ["remark c"]


def test_graph_steps_without_a_folder_give_the_same(draft, context):
    recipe = Recipe.of(["test.remark:word=a", "test.remark:word=b"])
    alone = apply_graph_steps(draft, recipe, dataclasses.replace(context, folder=None))
    assert draft_digest(alone) == draft_digest(apply_graph_steps(draft, recipe, context))


@pytest.mark.parametrize("change", ["seed", "train", "draft"])
def test_graph_steps_are_not_reused_under_other_conditions(change, draft, context, images):
    recipe = Recipe.of(["test.remark"])
    apply_graph_steps(draft, recipe, context)
    if change == "draft":
        weight = Weight(scales=np.float32(0.5), codes=np.array([1], np.int8))
        draft = draft.with_formats(weights={"layer": weight})
    else:
        context = dataclasses.replace(context, **{change: 1 if change == "seed" else images.take(np.arange(1, 12))})
    apply_graph_steps(draft, recipe, context)
    assert CALLS == ["remark nothing", "remark nothing"]


def test_one_code_of_a_large_weight_is_part_of_the_conditions(draft):
    codes = np.zeros(5000, np.int8)
    one = draft.with_formats(weights={"layer": Weight(scales=np.ones(1, np.float32), codes=codes.copy())})
    codes[2500] = 1
    two = draft.with_formats(weights={"layer": Weight(scales=np.ones(1, np.float32), codes=codes)})
    assert draft_digest(one) != draft_digest(two)


@pytest.mark.parametrize("damage", ["cut", "other", "field"])
def test_a_damaged_draft_is_made_again(damage, draft, context, model):
    recipe = Recipe.of(["test.remark"])
    apply_graph_steps(draft, recipe, context)
    (path,) = context.folder.iterdir()
    if damage == "other":
        shutil.copy(model.source, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        content = torch.load(path)
        del content["draft"]["calibrator"]
        torch.save(content, path)
    assert apply_graph_steps(draft, recipe, context).facts == {"test.remark": {"word": "nothing", "before": []}}
    assert CALLS == ["remark nothing", "remark nothing"]


def test_a_recipe_of_graph_steps_is_sent_to_what_runs_it(model, context):
    with pytest.raises(OptionError, match=r"test\.remark works on a graph.*quantize_by_recipe"):
        apply_recipe(model, Recipe.of(["test.remark"]), context)
