"""Opens the forms of a deployment for classification alone, which an engine does several times faster than torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rctk.deployment import Deployment
from rctk.evaluation.subjects import Subject
from rctk.forms import check_forms
from rctk_export.engines import ENGINES


@contextmanager
def open_predictors(deployment: Deployment, forms: Sequence[str], engine: str) -> Iterator[list[Subject]]:
    """Open each form once; nothing is differentiable.

    Args:
        deployment: From :func:`rctk.deployment.open_deployment`.
        forms: ``float``, ``twin``, ``engine``; each at most once is opened.
        engine: Member of the engine table with its settings; runs the float file and the deployed file alike.
    """
    check_forms(forms)
    with ExitStack() as stack:

        def subject(form: str) -> Subject:
            source = deployment.need_float() if form == "float" else deployment.deployed
            opened = ENGINES.build("twin" if form == "twin" else engine).open(source)
            return Subject(name=form, predict=stack.enter_context(opened).predict)

        yield [subject(form) for form in dict.fromkeys(forms)]
