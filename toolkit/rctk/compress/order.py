"""Which step may follow which, so that none undoes another; looked at before anything runs.

A step has a ``role``, and one without may stand anywhere:

========  =========================================================
formats   chooses form and widths of the whole file
margin    leaves layers float until a margin is kept
width     chooses the width of one layer
weights   changes weights of the graph
scales    fixes scales of weights
codes     fixes codes of weights, at scales that may stand
grids     fixes scales and codes of weights
training  trains weights and fixes all grids
biases    mends biases for the codes as they are
pattern   makes a 2:4 pattern of zeros
channels  removes channels
========  =========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

from rctk.compress import STEPS
from rctk.compress.step import Draft, Form, Step
from rctk_kernels.errors import OptionError


class Placed(Protocol):
    """A step and its name; see :class:`rctk.compress.recipe.Named`."""

    @property
    def name(self) -> str:
        """Such as ``quant.lsq``."""
        ...

    @property
    def step(self) -> Step:
        """With all its settings."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What the steps so far have settled, whatever the network.

    Attributes:
        form: Of the file.
        narrow: Widths other than 8 bits were chosen for it.
        narrow_weights: Those of weights.
        chosen: The step that chose formats of the whole file.
        widened: The step that chose the width of one layer.
        fixed: The step that fixed scales, codes or grids.
        exact: It has fixed codes, and not scales alone.
        corrected: The step that mended biases for the codes as they were.
        pattern: The step that made a 2:4 pattern.
    """

    form: Form = "static"
    narrow: bool = False
    narrow_weights: bool = False
    chosen: str = ""
    widened: str = ""
    fixed: str = ""
    exact: bool = False
    corrected: str = ""
    pattern: str = ""


def check_order(steps: Iterable[Placed], settled: Settled | None = None) -> None:
    """Refuse a step that would undo another, or that another leaves no work.

    Args:
        steps: In order. A step without a ``role`` may stand anywhere.
        settled: What steps in front of them have settled already.

    Raises:
        OptionError: It names both steps, and the order that works.
    """
    settled = settled or Settled()
    for placed in steps:
        role = getattr(placed.step, "role", "")
        _require(placed.name, role, settled)
        settled = _after(placed, role, settled)


def settled_in(draft: Draft) -> Settled:
    """Return what the steps of a draft have settled."""
    roles = {name: getattr(STEPS.load(name), "role", "") for name in draft.facts if name in STEPS.names()}
    names = {role: name for name, role in roles.items()}
    exact = names.get("training") or names.get("grids") or names.get("codes", "")
    stands = [*draft.formats.weights, *draft.formats.steps, *draft.ranges]
    return Settled(
        form=draft.form,
        narrow=min(draft.formats.weight_bits, draft.formats.activation_bits) < 8,
        narrow_weights=draft.formats.weight_bits < 8,
        chosen=names.get("formats") or names.get("margin", ""),
        widened=names.get("width", ""),
        fixed=(exact or names.get("scales") or "an earlier step") if stands else "",
        exact=bool(exact),
        corrected=names.get("biases", ""),
    )


def _after(placed: Placed, role: str, settled: Settled) -> Settled:
    """Return what is settled behind a step."""
    step, name = placed.step, placed.name
    if role == "formats":
        bits = [getattr(step, key, 8) for key in ("weight_bits", "activation_bits")]
        return replace(
            settled, chosen=name, form=getattr(step, "form", "static"), narrow=min(bits) < 8, narrow_weights=bits[0] < 8
        )
    changes: dict[str, dict[str, Any]] = {
        "margin": {"chosen": settled.chosen or name},
        "width": {"widened": name},
        "scales": {"fixed": name},
        "codes": {"fixed": name, "exact": True},
        "grids": {"fixed": name, "exact": True},
        "training": {"fixed": name, "exact": True},
        "biases": {"corrected": name},
        "pattern": {"pattern": name},
    }
    return replace(settled, **changes.get(role, {}))


class Rule(NamedTuple):
    """Steps of these roles are refused behind what clashes, with this text."""

    roles: set[str]
    clashes: Callable[[Settled], object]
    text: str


RULES = (
    Rule(
        {"formats"},
        lambda settled: settled.chosen,
        "{name} chooses formats that {chosen} has chosen already; leave one of the two out",
    ),
    Rule(
        {"formats"},
        lambda settled: settled.widened,
        "{name} chooses the widths of all layers; put it in front of {widened}",
    ),
    Rule(
        {"training", "scales", "grids"},
        lambda settled: settled.fixed,
        "{name} fixes codes or scales, and {fixed} has done so already; leave one of the two out",
    ),
    Rule(
        {"codes"},
        lambda settled: settled.exact,
        "{name} fixes codes, and {fixed} has done so already; leave one of the two out",
    ),
    Rule(
        {"formats", "width"},
        lambda settled: settled.fixed,
        "{name} chooses formats, but {fixed} has fixed codes or scales already; put {name} in front of it",
    ),
    Rule(
        {"weights"},
        lambda settled: settled.fixed,
        "{name} changes the weights, but {fixed} has fixed their codes or scales already; put {name} in front of it",
    ),
    Rule(
        {"formats", "weights", "width", "scales", "codes", "grids", "training"},
        lambda settled: settled.corrected,
        "{corrected} mends biases for the codes as they are; put {name} in front of it",
    ),
    Rule(
        {"channels"},
        lambda settled: settled.pattern,
        "{name} removes channels, which breaks the 2:4 pattern of {pattern}; put {name} in front of it",
    ),
    Rule(
        {"training"},
        lambda settled: settled.narrow or settled.widened,
        "{name} has widths of its own; leave out {choosing}, which chooses others",
    ),
    Rule(
        {"grids"},
        lambda settled: settled.narrow_weights and settled.form == "static",
        "{name} has a width of its own; leave weight_bits out of {chosen}",
    ),
    Rule(
        {"training", "margin", "grids"},
        lambda settled: settled.form != "static",
        "{name} is for static int8, and {chosen} writes a {form} file; leave one of the two out",
    ),
    Rule(
        {"width", "scales", "codes", "grids", "biases"},
        lambda settled: settled.form == "dynamic",
        "{name} has no effect in a dynamic file, whose codes are made at the end; leave {chosen} out",
    ),
)
"""The first that clashes is told."""


def _require(name: str, role: str, settled: Settled) -> None:
    """Refuse a step of this role behind what is settled."""
    for rule in RULES:
        if role in rule.roles and rule.clashes(settled):
            choosing = settled.widened or settled.chosen or "the step"
            raise OptionError(rule.text.format(name=name, choosing=choosing, **asdict(settled)))
