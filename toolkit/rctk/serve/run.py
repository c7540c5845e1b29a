"""Listens until a signal ends it."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import NamedTuple

from rctk.serve.http import application
from rctk.serve.served import Served, unavailable
from rctk.serve.settings import ServeSettings
from rctk_kernels.errors import OptionError

try:
    import uvicorn
except ImportError as error:
    raise unavailable("uvicorn", error) from error

IDLE_S = 75
"""A connection that says nothing for so long is closed; clients open another one."""
GRACE_S = 3
"""So long may requests finish after a signal."""


class Listening(NamedTuple):
    """Ports that were taken."""

    port: int
    grpc_port: int | None


def serve(models: Mapping[str, Served], settings: ServeSettings, ready: Callable[[Listening], None]) -> None:
    """Open the engines, listen, and answer until SIGINT or SIGTERM, which then goes on to its former handler.

    Args:
        models: By their names.
        settings: Doors and limits.
        ready: Called once, when clients can connect.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings))
        for served in models.values():
            stack.enter_context(served)
        grpc_port = None
        if settings.grpc_port is not None:
            from rctk.serve.grpc import start_grpc  # noqa: PLC0415  # only where it is asked for

            server, grpc_port = start_grpc(models, settings)
            stack.callback(lambda: server.stop(GRACE_S).wait())
        config = uvicorn.Config(
            application(models, settings),
            http="httptools" if importlib.util.find_spec("httptools") else "h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise OptionError(
                f"cannot use {settings.certificate} and {settings.key}: {error}; give PEM files"
            ) from error
        ready(Listening(listener.getsockname()[1], grpc_port))
        uvicorn.Server(config).run(sockets=[listener])


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(found[4][:2], family=found[0])
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        words = os.strerror(error.errno) if error.errno and error.errno in errno.errorcode else str(error)
        raise OptionError(f"cannot listen at {where}: {words}; choose another --host or --port") from error
    # What it accepts inherits this; asyncio leaves it away here, and each answer would wait 40 ms for the client's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
