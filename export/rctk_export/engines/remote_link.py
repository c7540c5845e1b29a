"""What both ways to a server share: what it says about a model, how a call can fail, token and certificates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from rctk_export.batching import End
from rctk_kernels.errors import EngineError, OptionError

TOKEN, TOKEN_FILE, CERTIFICATES = "RCTK_TOKEN", "RCTK_TOKEN_FILE", "RCTK_CA"
"""Environment variables: the token itself, a file that holds it, and a file of certificates to trust."""
KINDS = {"FP32": "float32", "UINT8": "uint8"}
"""Words of the protocol for the types that can be fed."""
Why = Literal["lost", "busy", "late", "refused", "unknown"]


class FaultError(Exception):
    """A call that failed.

    Attributes:
        why: ``lost``: no connection, or it broke. ``busy``: the server asks to come again. ``late``: no answer in time.
            ``unknown``: no such model. ``refused``: anything else that a second try would not change.
    """

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(" ".join(text.split())[:300])
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a server says about a model.

    Attributes:
        name: Of the model.
        versions: That it serves; `rctk serve` puts the first twelve digits of the file's SHA-256 there.
        platform: Such as ``onnxruntime_onnx``; ``rctk_...`` for `rctk serve`.
        inputs: Their names, types and shapes, with None for open sizes.
        outputs: The same.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]

    @classmethod
    def of(cls, values: Any) -> Description:
        """Read the JSON of the protocol; :class:`FaultError` where it is none."""
        try:
            versions = tuple(str(version) for version in values.get("versions") or ())
            ends = {key: tuple(_end(end) for end in values[key]) for key in ("inputs", "outputs")}
            return cls(
                name=str(values["name"]),
                versions=versions,
                platform=str(values.get("platform", "")),
                **cast("Any", ends),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FaultError(
                "refused", f"its description of the model is not that of the protocol: {error!r}"
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 of everything the server says, which is all that names what runs there."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Answer(NamedTuple):
    """What came back."""

    logits: npt.NDArray[np.generic]
    version: str


class Link(Protocol):
    """A connection to one model; one thread at a time. Every method raises :class:`FaultError` alone."""

    def describe(self, model: str, version: str) -> Description:
        """Ask for names, types and shapes."""
        ...

    def infer(self, description: Description, version: str, feed: npt.NDArray[Any]) -> Answer:
        """Classify one batch."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def token_headers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the header that carries the token, if the environment has one."""
    token, file = environment.get(TOKEN, ""), environment.get(TOKEN_FILE, "")
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise OptionError(f"cannot read the token in {file}, which {TOKEN_FILE} names; check the file") from error
    if any(not 32 < ord(character) < 127 for character in token):
        raise OptionError("the token holds spaces or characters that a header cannot carry; use plain ASCII")
    return {"authorization": f"Bearer {token}"} if token else {}


def certificates(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file of certificates to trust; None for those of the system."""
    name = environment.get(CERTIFICATES)
    if name and not Path(name).is_file():
        raise EngineError(f"there is no file {name}, which {CERTIFICATES} names; give the server's certificate as PEM")
    return Path(name) if name else None


def _end(values: Mapping[str, Any]) -> End:
    sizes = tuple(None if int(size) < 0 else int(size) for size in values["shape"])
    kind = str(values["datatype"]).removeprefix("TYPE_")
    return End(str(values["name"]), KINDS.get(kind, kind), sizes)
