"""The protocol over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rctk import __version__
from rctk.serve.served import RefusedError, Served, served_named, unavailable
from rctk.serve.settings import ServeSettings
from rctk.serve.tensors import answer, read_request

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise unavailable("starlette", error) from error

LENGTH = "inference-header-content-length"
STATUS = {"bad": 400, "forbidden": 401, "unknown": 404, "late": 408, "large": 413, "failed": 500, "busy": 503}
HEADERS = {"busy": {"retry-after": "1"}, "forbidden": {"www-authenticate": "Bearer"}}
Handler = Callable[[Request], Awaitable[Response]]


def application(models: Mapping[str, Served], settings: ServeSettings) -> Starlette:
    """Return the application for these models."""
    door = _Door(models, settings)
    routes = [
        Route("/v2/health/live", door.alive),
        Route("/v2/health/ready", door.alive),
        Route("/v2", door.guarded(door.server)),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, door.guarded(door.model)),
            Route(f"{path}/ready", door.guarded(door.ready)),
            Route(f"{path}/infer", door.guarded(door.infer), methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _plain_error})


class _Door:
    """The handlers of one application."""

    def __init__(self, models: Mapping[str, Served], settings: ServeSettings) -> None:
        self._models, self._settings = models, settings
        self._expected = f"Bearer {settings.token}".encode() if settings.token else b""

    def guarded(self, handler: Handler) -> Handler:
        """Ask for the token, and word refusals."""

        async def handle(request: Request) -> Response:
            try:
                self._check(request)
                return await handler(request)
            except RefusedError as refused:
                return _error(STATUS[refused.why], str(refused), HEADERS.get(refused.why))
            except ClientDisconnect:
                return _error(400, "the client left")  # nobody reads it

        return handle

    async def alive(self, _request: Request) -> Response:
        """Say that the server runs; every engine was opened before it listened."""
        return Response()

    async def server(self, _request: Request) -> Response:
        """Describe the server."""
        return JSONResponse({"name": "rctk", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        return JSONResponse(self._served(request).describe())

    async def ready(self, request: Request) -> Response:
        """Say that a model is there."""
        self._served(request)
        return Response()

    async def infer(self, request: Request) -> Response:
        """Classify a batch."""
        served = self._served(request)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusedError("bad", "compressed requests are not read; send the tensors as they are")
        length = request.headers.get(LENGTH)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            raise RefusedError("bad", f"{LENGTH} is a number of bytes, got {length!r:.30}")
        body = await self._body(request, self._settings.most_bytes(served.image_bytes))
        asked = read_request(body, None if length is None else int(length), served, self._settings.max_batch)
        logits = await asyncio.wrap_future(served.submit(asked.images))
        told, head = answer(served, asked, logits)
        if head is None:
            return Response(told, media_type="application/json")
        return Response(told, media_type="application/octet-stream", headers={LENGTH: str(head)})

    def _served(self, request: Request) -> Served:
        return served_named(self._models, request.path_params["name"], request.path_params.get("version", ""))

    def _check(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        if self._expected and not hmac.compare_digest(given, self._expected):
            raise RefusedError("forbidden", "this server wants its token; set RCTK_TOKEN")

    async def _body(self, request: Request, most: int) -> bytearray:
        """Read a body that is at most so long and arrives in time."""
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > most:
            raise RefusedError("large", f"the request has {declared} bytes, at most {most} are read; send fewer images")
        try:
            return await asyncio.wait_for(_received(request, most), self._settings.receive_s)
        except (TimeoutError, asyncio.TimeoutError) as error:  # two classes on Python 3.10
            raise RefusedError("late", f"the request did not arrive within {self._settings.receive_s:g} s") from error


async def _received(request: Request, most: int) -> bytearray:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RefusedError("large", f"at most {most} bytes are read; send fewer images")
    return body


async def _plain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), error.headers)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    content: Any = {"error": text}
    return JSONResponse(content, status_code=status, headers=headers)
