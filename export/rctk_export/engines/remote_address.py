"""Addresses of models behind a server of the Open Inference Protocol v2. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from rctk_kernels.errors import OptionError

SCHEMES = ("http", "https", "grpc", "grpcs")
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+([^/]+)/?(.*)", re.DOTALL)  # a pathlib.Path makes one slash of two
_MODEL = re.compile(r"(?:(?P<base>.*)/)?v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?")


class Address(NamedTuple):
    """Where a model is served."""

    scheme: str
    host: str
    """``host:port``, and the path before ``/v2`` where the server lives below one."""
    model: str
    version: str
    """``""`` leaves the choice to the server."""

    @property
    def secure(self) -> bool:
        """Whether the connection is TLS."""
        return self.scheme in {"https", "grpcs"}

    def __str__(self) -> str:
        """Return it as a user writes it."""
        version = f"/versions/{self.version}" if self.version else ""
        return f"{self.scheme}://{self.host}/{f'v2/models/{self.model}' if version else self.model}{version}"


def is_address(text: str | Path) -> bool:
    """Say whether ``text`` is an address and no path of a file.

    Example:
        >>> is_address("http://jetson:8000/model"), is_address(Path("grpc://jetson:8001/model")), is_address("a.onnx")
        (True, True, False)
    """
    return _ADDRESS.fullmatch(str(text)) is not None


def read_address(text: str | Path) -> Address:
    """Read ``http://jetson:8000/model`` or ``http://jetson:8000/v2/models/model/versions/3``.

    Example:
        >>> read_address("http://jetson:8000/net").model, str(read_address("grpc://jetson:8001/net"))
        ('net', 'grpc://jetson:8001/net')
    """
    match = _ADDRESS.fullmatch(str(text))
    if match is None:
        raise OptionError(f"{text} is no address of a served model; write one such as http://jetson:8000/model")
    scheme, host, rest = match.groups()
    if "@" in host:
        raise OptionError("an address must hold no password, because it is written to records; set RCTK_TOKEN instead")
    if any(character in rest for character in "?#"):
        raise OptionError(f"{scheme}://{host}/{rest} has a query; write only host, port and model")
    rest = rest.strip("/")
    full = _MODEL.fullmatch(rest)
    if full is not None:
        base = f"/{full['base']}" if full["base"] else ""
        return Address(scheme, host + base, unquote(full["model"]), full["version"] or "")
    if not rest or "/" in rest:
        raise OptionError(
            f"{scheme}://{host}/{rest} names no model; write {scheme}://{host}/MODEL with the name it is served under"
        )
    return Address(scheme, host, unquote(rest), "")
