"""The forms of a deployment that can be attacked: float parent, twin, engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Attack, Predict
from rctk.deployment import Deployment
from rctk.evaluation.pairs import beside_float
from rctk.evaluation.scores import Scored
from rctk.evaluation.subjects import Subject
from rctk_export.engine import Engine, Source, notes_of
from rctk_export.engines import ENGINES
from rctk_export.registry import unknown
from rctk_kernels.errors import EngineUnavailableError, OptionError

Form = Literal["float", "twin", "engine"]
FORMS: tuple[Form, ...] = get_args(Form)
ENSEMBLE = "ensemble"
"""Not a form of the deployment, but of all that are named beside it: gradient attacks are crafted on their mean."""


def check_forms(names: Sequence[str], *, ensemble: bool = False) -> None:
    """Refuse a form that does not exist, with the nearest one that does, and an ensemble where it makes no sense."""
    known: list[str] = [*FORMS, ENSEMBLE] if ensemble else [*FORMS]
    for name in names:
        if name not in known:
            raise unknown("form", name, known)


def need_gradients(attacks: Sequence[str]) -> bool:
    """Whether one of the attacks differentiates a model; a wrong name or setting, or torch missing, is refused here."""
    kinds = [_built(text).kind for text in attacks]
    return "gradient" in kinds


def _built(attack: str) -> Attack:
    try:
        return ATTACKS.build(attack)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EngineUnavailableError(
            f"the attack {attack.partition(':')[0]} needs the package torch, which is not installed; take a query "
            "attack, such as --attack square, or `pip install 'rctk[host]'`"
        ) from error


def need_reference(attacks: Sequence[str]) -> bool:
    """Whether one of the attacks compares two forms."""
    return any(getattr(_built(text), "needs_reference", False) for text in attacks)


def check_pairs(forms: Sequence[str], attacks: Sequence[str]) -> None:
    """Refuse an attack that compares two forms where only one is named."""
    pairs = [text for text in attacks if need_reference([text])]
    if pairs and len(set(forms) - {ENSEMBLE}) < 2:
        raise OptionError(f"{pairs[0]} compares two forms and got {forms[0]}; name two, such as --on float --on engine")


@contextmanager
def open_forms(
    deployment: Deployment,
    forms: Sequence[str],
    engine: str,
    *,
    gradients: bool = True,
    beside: bool = False,
    look: Callable[[Subject], Subject] | None = None,
) -> Iterator[list[Subject]]:
    """Open each form once, for :func:`rctk.evaluation.suite.attack_subjects`.

    Without torch (on a device) the float file runs in ``engine`` too, and nothing is differentiable.

    Args:
        deployment: From :func:`rctk.deployment.open_deployment`.
        forms: ``float``, ``twin``, ``engine``; each at most once is opened. ``ensemble`` adds the mean logits of the
            others for gradient attacks to craft on; it is not judged.
        engine: Member of the engine table with its settings, for the deployed file.
        gradients: Give the engine its twin, so that gradient attacks can be crafted for it. Query attacks do without,
            also where the twin knows too few operators.
        beside: Give every form another one as its reference, for attacks on their difference.
        look: Sees every form before anything is built on it and returns it, or another in its place; see
            :class:`rctk.evaluation.first_look.FirstLook`.
    """
    check_forms(forms, ensemble=True)
    with ExitStack() as stack:
        opener = _Opener(deployment, engine, stack, gradients=gradients)
        subjects = [getattr(opener, f"{form}_form")() for form in dict.fromkeys(forms) if form != ENSEMBLE]
        subjects = subjects if look is None else [look(subject) for subject in subjects]
        if ENSEMBLE in forms:
            subjects.append(opener.ensemble_form(subjects))
        yield beside_float(subjects) if beside else subjects


class _Opener:
    def __init__(self, deployment: Deployment, engine: str, stack: ExitStack, *, gradients: bool) -> None:
        self.deployment, self.engine, self.stack = deployment, deployment.engine_of(engine), stack
        self.torch = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("onnx") is not None
        self.gradients = gradients and self.torch
        self.shared_twin: Any = None

    def float_form(self) -> Subject:
        source = self.deployment.need_float()
        opened = self._open("torch" if self.torch else self.engine, source)
        return Subject(
            name="float", predict=opened.predict, model=getattr(opened, "module", None), notes=notes_of(opened)
        )

    def twin_form(self) -> Subject:
        twin = self._twin()
        return Subject(name="twin", predict=twin.predict, model=twin.module)

    def engine_form(self) -> Subject:
        opened = self._open(self.engine, self.deployment.deployed)
        twin = self.gradients and not self.deployment.no_twin
        model = getattr(opened, "module", None) or (self._twin().module if twin else None)
        predict: Predict = opened.predict
        if self.deployment.evaluation is not None:
            predict = Scored(predict, self._open(self.engine, self.deployment.evaluation).predict)
        return Subject(name="engine", predict=predict, model=model, notes=notes_of(opened))

    def ensemble_form(self, subjects: Sequence[Subject]) -> Subject:
        if not self.gradients:
            raise OptionError("--on ensemble is for gradient attacks and needs torch; add one such as apgd-ce")
        from rctk.evaluation.sources import ensemble  # noqa: PLC0415  # torch

        return ensemble(subjects)

    def _twin(self) -> Any:
        if self.deployment.no_twin:
            raise OptionError(
                f"{self.deployment.name} has no twin here, because {self.deployment.no_twin}; use --on engine"
            )
        if self.shared_twin is None:
            self.shared_twin = self._open("twin", self.deployment.deployed)
        return self.shared_twin

    def _open(self, engine: str, source: Source) -> Engine:
        return self.stack.enter_context(ENGINES.build(engine).open(source))
