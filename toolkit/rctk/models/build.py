"""From the text of ``--arch`` to a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rctk.models.factories import load_factory
from rctk.models.pruned import PREFIX, fit_widths, same_shapes
from rctk.models.shapes import CIFAR
from rctk_export.input_spec import InputSpec
from rctk_export.registry import Family, convert, unknown
from rctk_kernels.errors import ModelError, OptionError, RctkError

ARCHITECTURES: Family[Any] = Family(
    "architecture",
    {
        "digits-cnn": "rctk.models.small:digits_cnn",
        "lenet5": "rctk.models.lenet:lenet5",
        "mlp": "rctk.models.small:mlp",
        "mnist-cnn": "rctk.models.lenet:mnist_cnn",
        "mobilenetv2": "rctk.models.mobilenet:mobilenetv2",
        "resnet18": "rctk.models.resnet18:resnet18",
        "resnet20": "rctk.models.cifar_resnet:resnet20",
        "resnet32": "rctk.models.cifar_resnet:resnet32",
        "resnet44": "rctk.models.cifar_resnet:resnet44",
        "resnet56": "rctk.models.cifar_resnet:resnet56",
        "resnet20-b": "rctk.models.cifar_resnet:resnet20_b",
        "resnet32-b": "rctk.models.cifar_resnet:resnet32_b",
        "resnet44-b": "rctk.models.cifar_resnet:resnet44_b",
        "resnet56-b": "rctk.models.cifar_resnet:resnet56_b",
        "vgg16-bn": "rctk.models.vgg:vgg16_bn",
        "wrn-28-4": "rctk.models.wide_resnet:wrn_28_4",
    },
)
"""Factories with keyword settings, such as ``lenet5:conv1=6,conv2=16``; each makes a freshly initialised module."""

ELSEWHERE = ("pruned:ARCH", "torchvision:NAME", "timm:NAME", "FILE.py:FACTORY", "PACKAGE.MODULE:FACTORY")
OURS = frozenset({"classes", "num_classes", "image_shape", "state_dict"})
"""Keywords that rctk fills in where a factory has them; all others are settings."""


def built_in(text: str) -> bool:
    """Tell whether ``text`` names one of our architectures.

    Example:
        >>> built_in("mlp:layers=1"), built_in("nets.py:small")
        (True, False)
    """
    return text.partition(":")[0] in ARCHITECTURES.names()


def runs_code(text: str) -> bool:
    """Tell whether building ``text`` runs code that is neither ours nor torchvision's nor timm's.

    Example:
        >>> runs_code("pruned:nets.py:small"), runs_code("pruned:resnet20")
        (True, False)
    """
    if text.startswith(PREFIX):
        return runs_code(text.removeprefix(PREFIX))
    return not built_in(text) and text.partition(":")[0] not in {"torchvision", "timm"}


def build_architecture(
    text: str,
    *,
    classes: int | None,
    input: InputSpec | None,  # noqa: A002  the flag is --input
    state_dict: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Make a freshly initialised module, with random numbers from torch's global generator as ever in torch.

    A factory gets the keywords ``classes`` (or ``num_classes``), ``image_shape`` and ``state_dict`` where its signature
    has them and they are known; what the text adds after the name are its settings.

    Args:
        text: ``resnet20``, ``mlp:hidden=64,layers=1``, ``torchvision:resnet18``, ``timm:resnet18``,
            ``path/file.py:factory`` or ``package.module:factory``. The last two run the code they name. ``pruned:``
            before any of them fits every width to ``state_dict``.
        classes: ``K``; ``None`` for the default of the architecture.
        input: Its shape ``(C, H, W)`` is the image shape; ``None`` for the default of the architecture.
        state_dict: Weights that a factory may read widths from.

    Example:
        >>> build_architecture("mlp:layers=0", classes=3, input=None)[-1]
        Linear(in_features=784, out_features=3, bias=True)
    """
    if text.startswith(PREFIX):
        inner = text.removeprefix(PREFIX)
        if state_dict is None:
            raise OptionError(f"--arch {text} reads its widths from weights; without weights give --arch {inner}")
        module = build_architecture(inner, classes=classes, input=input, state_dict=state_dict)
        return fit_widths(module, state_dict, CIFAR if input is None else input.shape)
    if built_in(text):
        name, _, rest = text.partition(":")
        factory: Callable[..., Any] = ARCHITECTURES.load(name)
    elif ":" in text and "=" not in text.split(":")[1]:
        factory, rest = load_factory(text)
    else:
        known_ones = unknown("architecture", text.partition(":")[0], ARCHITECTURES.names(), where="rctk list models")
        raise OptionError(f"{known_ones}; or give {', '.join(ELSEWHERE)}")
    known = {
        "classes": classes,
        "num_classes": classes,
        "image_shape": None if input is None else input.shape,
        "state_dict": state_dict,
    }
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (NameError, ValueError):  # annotations that need imports of type checkers, or a builtin
        signature = inspect.signature(factory)
    arguments = {key: value for key, value in known.items() if key in signature.parameters and value is not None}
    arguments |= settings_of(signature, rest, text)
    try:
        module = factory(**arguments)
    except RctkError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise ModelError(f"--arch {text} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"--arch {text} must return a torch.nn.Module, it returned {type(module).__name__}")
    return module


def arch_of(module: nn.Module, text: str, *, classes: int | None, input: InputSpec) -> str:  # noqa: A002
    """Return the text that builds ``module`` again from its weights: ``text``, or ``pruned:`` before it.

    Args:
        module: Made from ``text`` and perhaps pruned since.
        text: Text of ``--arch``; empty for a captured graph, which stays so.
        classes: ``K``.
        input: Of its images.

    Raises:
        ModelError: Neither of the two gives the tensors of ``module``.
    """
    if not text or text.startswith(PREFIX):
        return text
    state = module.state_dict()
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        for candidate in (text, PREFIX + text):
            built = build_architecture(candidate, classes=classes, input=input, state_dict=state)
            if same_shapes(built, module):
                return candidate
    raise ModelError(f"--arch {text} does not give the layers of this module, with or without {PREFIX}; give its own")


def settings_of(signature: inspect.Signature, text: str, where: str) -> dict[str, Any]:
    """Read ``key=value,key=value`` with the types that the signature's annotations, or else its defaults, give."""
    settings: dict[str, Any] = {}
    allowed = sorted(set(signature.parameters) - OURS)
    for part in filter(None, text.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = key.replace("-", "_")
        if not equals:
            raise OptionError(f"cannot read {part!r} in --arch {where}; write NAME:key=value,key=value")
        if key not in allowed:
            raise unknown(f"setting of --arch {where}", key, allowed)
        parameter = signature.parameters[key]
        hint = parameter.annotation
        if hint is inspect.Parameter.empty or isinstance(hint, str):
            hint = type(parameter.default)
        settings[key] = convert(value, hint, f"{where}:{key}")
    return settings


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, since our errors are one line."""
    return (str(error).strip().splitlines() or ["no message"])[0]
