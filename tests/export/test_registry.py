from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from rctk_export.registry import Family, number, unknown
from rctk_kernels.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Method:
    steps: int = 3
    size: float = 0.5
    norm: Literal["linf", "l2"] = "linf"
    fast: bool = False
    limit: float | None = 1.0
    name: str = ""


FAMILY: Family[Method] = Family("method", {"known": f"{__name__}:Method"})


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Method", Method, raising=False)


def test_settings_are_read_by_their_types():
    text = "known:steps=1e3,size=8/255,norm=l2,fast=yes,limit=none,name=a"
    assert FAMILY.build(text) == Method(steps=1000, size=8 / 255, norm="l2", fast=True, limit=None, name="a")


def test_a_bare_name_takes_all_defaults():
    assert FAMILY.build("known") == FAMILY.build(" known ") == Method()


def test_spaces_around_settings_do_not_matter():
    assert FAMILY.build("known: steps = 4 , size=0.1") == Method(steps=4, size=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("knwon", "unknown method 'knwon'; did you mean 'known'"),
        ("zzz", "unknown method 'zzz'; choose from known"),
        ("known:step=3", "did you mean 'steps'"),
        ("known:steps", "name:key=value"),
        ("known:steps=1.5", "known:steps must be a whole number such as 3, got '1.5'"),
        ("known:steps=abc", "known:steps must be a whole number such as 3, got 'abc'"),
        ("known:steps=inf", "whole number"),
        ("known:steps=2,steps=3", "'known:steps=2,steps=3' sets steps twice, to 2 and to 3; leave one of them out"),
        ("known:steps=2,steps=2", "sets steps twice, to 2 and to 2"),
        ("known:", "a setting is missing beside a colon or comma of 'known:'; write known, or add key=value"),
        ("known: ", "write known, or add"),
        ("known:steps=2,", "of 'known:steps=2,'; write known:steps=2, or add key=value"),
        ("known:,steps=2", "write known:steps=2, or add"),
        ("known:steps=2,,size=1", "write known:steps=2,size=1, or add"),
        ("known:size=abc", "not a number"),
        ("known:size=8/0", "not a number"),
        ("known:size=8/", "not a number"),
        ("known:norm=l3", "unknown value of known:norm 'l3'"),
        ("known:fast=maybe", "true or false"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text, words):
    with pytest.raises(OptionError, match=words) as caught:
        FAMILY.build(text)
    assert "\n" not in str(caught.value)


def test_a_long_table_is_not_spelled_out():
    names = [f"method_{index:03}" for index in range(300)]
    long: Family[Method] = Family("method", dict.fromkeys(names, "a:B"), "methods")
    with pytest.raises(OptionError) as near:
        long.load("METHOD_042")
    assert str(near.value).startswith("unknown method 'METHOD_042'; did you mean 'method_042', ")
    assert str(near.value).endswith("? All 300 names: `rctk list methods`")
    with pytest.raises(OptionError) as far:
        long.load("zzz")
    assert str(far.value) == "unknown method 'zzz'; all 300 names: `rctk list methods`"
    nowhere = str(unknown("layer", "zzz", names))
    assert nowhere.startswith("unknown layer 'zzz'; choose from method_000, method_001, ")
    assert nowhere.endswith(", ... (300 in all)")
    assert len(nowhere) < 220


def test_a_class_is_imported_only_when_its_name_is_used():
    broken: Family[Method] = Family("method", {"gone": "no_such_module_here:Class"})
    assert broken.names() == ["gone"]
    with pytest.raises(ModuleNotFoundError):
        broken.load("gone")


def test_fractions_are_exact():
    assert number("8/255") == 8 / 255
    assert number("-1e-3") == -0.001
    assert number("125.3/255") == 125.3 / 255


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("sqare", ["pgd", "square"], "square"),
        ("fgms", ["pgd", "fgsm"], "fgsm"),
        ("quant.lsp", ["quant.inq", "quant.lsq"], "quant.lsq"),
        ("qunat.lsq", ["quant.inq", "quant.lsq"], "quant.lsq"),
        ("quant.bias_corr", ["quant.absorb_bias", "quant.bias_correction"], "quant.bias_correction"),
        ("finetuning", ["defensive", "finetune"], "finetune"),
    ],
)
def test_the_nearest_name_is_offered(name, known, meant):
    assert f"unknown step {name!r}; did you mean {meant!r}? Choose" in str(unknown("step", name, known))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("foo", ["ratio", "floor"]),
        ("quant.foo", ["quant.xnor", "quant.twn", "quant.lsq"]),
        ("train.something", ["train.mart", "train.standard"]),
        ("banana", ["balance"]),
    ],
)
def test_a_name_that_is_far_from_all_is_not_turned_into_one(name, known):
    assert str(unknown("step", name, known)) == f"unknown step {name!r}; choose from {', '.join(known)}"
