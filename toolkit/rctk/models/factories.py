"""Factories from elsewhere: torchvision, timm, a Python file, a package. The last two run code: trusted input."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rctk.models.shapes import IMAGENET, Shape
from rctk_kernels.errors import ModelError

Factory = Callable[..., Any]


def load_factory(text: str) -> tuple[Factory, str]:
    """Return the factory that ``text`` names, and the settings after it.

    ``torchvision:resnet18``, ``timm:resnet18``, ``path/file.py:factory:key=value`` or ``package.module:factory``.
    """
    place, _, rest = text.partition(".py:") if ".py:" in text else text.partition(":")
    name, _, settings = rest.partition(":")
    if not name:
        raise ModelError(f"--arch {text} names no factory; write {place}:FACTORY")
    if place in {"torchvision", "timm"}:
        return _from_zoo(place, name), settings
    module = _from_file(Path(place + ".py"), text) if ".py:" in text else _from_package(place, text)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"--arch {text}: there is no {name} in {place}; choose from {', '.join(known)}")
    return factory, settings


def _from_zoo(package: str, name: str) -> Factory:
    """Return a factory for a network of torchvision or timm, without weights: nothing is downloaded."""
    try:
        zoo = importlib.import_module(package)
        models = importlib.import_module(f"{package}.models")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # torchvision beside another build of torch
        raise ModelError(
            f"--arch {package}:{name} needs {package}, which cannot be imported ({type(error).__name__}: {error}); "
            f"install the build that belongs to your torch, `pip install {package}`, or export the model elsewhere"
        ) from error
    names = zoo.list_models() if package == "timm" else models.list_models(module=models)
    if name not in names:
        raise ModelError(f"--arch {package}:{name} is not an image classifier that {package} knows")
    if package == "timm":
        return partial(_timm, zoo.create_model, name)
    return partial(_torchvision, models.get_model, name)


def _torchvision(get_model: Factory, name: str, /, *, num_classes: int = 1000) -> Any:
    return get_model(name, weights=None, num_classes=num_classes)


def _timm(create_model: Factory, name: str, /, *, num_classes: int = 1000, image_shape: Shape = IMAGENET) -> Any:
    return create_model(name, pretrained=False, num_classes=num_classes, in_chans=image_shape[0])


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Let imports find the modules of ``folder`` while the block runs."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # the code that ran may have taken it away
            sys.path.remove(entry)


def _from_file(path: Path, text: str) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"--arch {text}: there is no file {path}")
    source = path.resolve()
    name = f"rctk_arch_{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with _first_on_path(source.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(f"--arch {text}: {path} fails: {type(error).__name__}: {error}") from error
    return module


def _from_package(place: str, text: str) -> ModuleType:
    try:
        with _first_on_path(Path.cwd()):
            return importlib.import_module(place)
    except ImportError as error:
        raise ModelError(
            f"--arch {text}: cannot import {place} ({error}); name a built-in architecture (rctk list), "
            "FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"
        ) from error
    except Exception as error:
        raise ModelError(f"--arch {text}: {place} fails: {type(error).__name__}: {error}") from error
