"""What flows along the edges of an interpreted graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rctk_kernels.qparams import QParams, Real, dequantize

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Coded:
    """Integer codes that have not been turned into reals yet.

    Attributes:
        codes: Of any integer type.
        q: Their grid; its axis counts from the front.
    """

    codes: Array
    q: QParams

    def real(self) -> Real:
        """Return the values that the codes stand for."""
        return dequantize(self.codes, self.q)


Value: TypeAlias = Array | Coded
"""Reals are float64; shapes, indices, conditions and the output of QuantizeLinear keep their integer or bool type."""


@dataclass(frozen=True)
class Node:
    """One operator of the graph.

    Attributes:
        op: Operator type, such as ``Conv``.
        name: For messages; the first output's name where the node has none.
        inputs: Tensor names; an empty one is an optional input left out.
        outputs: Tensor names.
        attributes: As Python values, words as text.
        grid: Of QuantizeLinear and DequantizeLinear.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    grid: QParams | None = None

    def get(self, key: str, default: Any) -> Any:
        """Return one attribute, or the default of the operator's definition."""
        return self.attributes.get(key, default)


Operator: TypeAlias = Callable[..., "Value | tuple[Value, ...]"]
"""``operator(node, *inputs)``; an optional input left out is None."""


def plain(value: Value) -> Array:
    """Return the array to compute with: the reals behind codes, anything else as it is."""
    return value.real() if isinstance(value, Coded) else value


def real(value: Value) -> Real:
    """Return float64 values."""
    return np.asarray(plain(value), dtype=np.float64)


def moved(value: Value, move: Callable[[Array], Array]) -> Value:
    """Move values about without computing; codes stay codes unless their grid varies along an axis."""
    if isinstance(value, Coded) and value.q.axis is None:
        return Coded(move(value.codes), value.q)
    return move(plain(value))


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape, without turning codes into reals."""
    return value.codes.shape if isinstance(value, Coded) else value.shape


def integers(value: Value) -> list[int]:
    """Return a shape, a list of axes or another small integer tensor as Python integers."""
    return [int(number) for number in plain(value).reshape(-1)]
