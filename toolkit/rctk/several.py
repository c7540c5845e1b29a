"""Several deployments side by side: every form of every one as a subject with a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rctk.deployment import Deployment, open_deployment
from rctk.evaluation.subjects import Subject
from rctk.forms import open_forms
from rctk_export.bundle import is_bundle
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import OptionError


@contextmanager
def open_deployments(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    spec: InputSpec | None = None,
    parent: Path | None = None,
    engine: str = "",
) -> Iterator[list[Deployment]]:
    """Open bundles and bare files that take the same images; several are called by their folders and files.

    Args:
        paths: One or more; among several, ``spec`` and ``parent`` are for the bare files and ``target`` for bundles.
        target: See :func:`rctk.deployment.open_deployment`.
        spec: As there.
        parent: As there.
        engine: As there.
    """
    if not paths:
        raise OptionError("give one or more bundle folders or .onnx files")
    with ExitStack() as stack:
        opened = []
        for path in paths:
            bundle = is_bundle(path) and len(paths) > 1
            own = open_deployment(
                path,
                target=target if bundle or len(paths) == 1 else None,
                spec=None if bundle else spec,
                parent=None if bundle else parent,
                engine=engine,
            )
            deployment = stack.enter_context(own)
            opened.append(replace(deployment, name=path.name) if len(paths) > 1 else deployment)
        shapes = {deployment.input.shape: deployment.name for deployment in opened}
        if len(shapes) > 1:
            found = " and ".join(f"{name} {'x'.join(map(str, shape))}" for shape, name in shapes.items())
            raise OptionError(f"the models take images of different sizes: {found}; give models of the same images")
        yield opened


@contextmanager
def open_all_forms(
    deployments: Sequence[Deployment],
    on: Sequence[str],
    engine: str,
    *,
    gradients: bool,
    look: Callable[[Subject], Subject] | None = None,
) -> Iterator[list[Subject]]:
    """Open the forms ``on`` of every deployment; among several they are called ``NAME/FORM``.

    A bare file without a float parent goes without ``float``, unless nothing else was asked for.
    """
    with ExitStack() as stack:
        subjects: list[Subject] = []
        for deployment in deployments:
            has = [form for form in on if form != "float" or deployment.float is not None]
            forms = stack.enter_context(open_forms(deployment, has or on, engine, gradients=gradients, look=look))
            subjects += forms if len(deployments) == 1 else [_named(form, deployment.name) for form in forms]
        names = [subject.name for subject in subjects]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise OptionError(f"two models are called {twice[0].partition('/')[0]}; rename one of the folders or files")
        yield subjects


def _named(subject: Subject, name: str) -> Subject:
    return replace(subject, name=f"{name}/{subject.name}", model_name=f"{name}/{subject.crafted_on('gradient')}")
