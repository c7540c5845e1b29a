"""How a server listens and what it takes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from rctk_kernels.errors import OptionError

HEAD_BYTES = 1 << 16
"""Room for the JSON before binary tensors."""
LARGEST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits and doors of a server.

    Attributes:
        host: Address to listen at; loopback unless told otherwise.
        port: Of HTTP; 0 takes a free one.
        grpc_port: Of gRPC; None leaves it away, 0 takes a free one.
        max_batch: Most images of a request.
        queue: Most requests that wait for one engine; the next is told to come again (503).
        connections: Most connections and requests at a time.
        receive_s: Seconds that a request may take to arrive.
        certificate: PEM file of the server's certificate chain; with it HTTP and gRPC are TLS.
        key: PEM file of its private key.
        token: What clients must send as ``Authorization: Bearer TOKEN``; empty for none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    max_batch: int = 256
    queue: int = 16
    connections: int = 64
    receive_s: float = 30.0
    certificate: Path | None = None
    key: Path | None = None
    token: str = ""

    def __post_init__(self) -> None:
        for name in ("max_batch", "queue", "connections"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for port in (self.port, self.grpc_port or 0):
            if not 0 <= port <= LARGEST_PORT:
                raise OptionError(f"a port is a number from 0 to {LARGEST_PORT}, got {port}")
        if (self.certificate is None) != (self.key is None):
            raise OptionError("TLS needs both --certificate and --key")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise OptionError(f"there is no file {file}; give certificate and key as PEM")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def most_bytes(self, image_bytes: int) -> int:
        """Return the longest body that is read: the largest binary batch and its head."""
        return self.max_batch * image_bytes + HEAD_BYTES
