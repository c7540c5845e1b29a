"""The protocol over gRPC, with grpcio and the messages that tritonclient brings."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rctk import __version__
from rctk.serve.served import OUTPUT, RefusedError, Served, checked_tensor, served_named, unavailable
from rctk.serve.settings import HEAD_BYTES, ServeSettings
from rctk_export.input_spec import FloatNCHW
from rctk_kernels.errors import OptionError

try:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as service
except (ImportError, RuntimeError) as error:  # tritonclient raises the second without its gRPC parts
    raise unavailable("grpcio and tritonclient for --grpc-port", ImportError(str(error))) from error

CODES = {
    "bad": grpc.StatusCode.INVALID_ARGUMENT,
    "large": grpc.StatusCode.INVALID_ARGUMENT,
    "forbidden": grpc.StatusCode.UNAUTHENTICATED,
    "unknown": grpc.StatusCode.NOT_FOUND,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "failed": grpc.StatusCode.INTERNAL,
}


def start_grpc(models: Mapping[str, Served], settings: ServeSettings) -> tuple[Any, int]:
    """Listen; return the server, to be stopped, and its port."""
    largest = max(settings.most_bytes(served.image_bytes) for served in models.values())
    server = grpc.server(
        ThreadPoolExecutor(settings.connections, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=settings.connections,
        options=[
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_metadata_size", HEAD_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    service.add_GRPCInferenceServiceServicer_to_server(_Servicer(models, settings), server)
    where = f"{settings.host}:{settings.grpc_port}"
    try:
        port = server.add_insecure_port(where) if settings.key is None else _secure(server, where, settings)
    except RuntimeError as error:
        raise OptionError(f"cannot listen at {where}; another process may do so: choose another --grpc-port") from error
    server.start()
    return server, port


def _secure(server: Any, where: str, settings: ServeSettings) -> int:
    assert settings.key is not None
    assert settings.certificate is not None
    pair = (settings.key.read_bytes(), settings.certificate.read_bytes())
    return int(server.add_secure_port(where, grpc.ssl_server_credentials([pair])))


class _Servicer(service.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
    """The calls of the protocol, by its names; what is not here answers UNIMPLEMENTED."""

    def __init__(self, models: Mapping[str, Served], settings: ServeSettings) -> None:
        self._models, self._settings = models, settings
        self._expected = f"Bearer {settings.token}".encode() if settings.token else b""

    def ServerLive(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Say that the server runs."""
        return messages.ServerLiveResponse(live=True)

    def ServerReady(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Say that it serves."""
        return messages.ServerReadyResponse(ready=True)

    def ServerMetadata(self, _request: Any, context: Any) -> Any:  # noqa: N802
        """Describe the server."""
        self._check(context)
        return messages.ServerMetadataResponse(name="rctk", version=__version__)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say whether a model is there."""
        self._check(context)
        try:
            served_named(self._models, request.name, request.version)
        except RefusedError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Describe a model."""
        told = self._served(request.name, request.version, context).describe()
        return messages.ModelMetadataResponse(**told)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Classify a batch."""
        served = self._served(request.model_name, request.model_version, context)
        try:
            logits = served.submit(_images(request, served, self._settings.max_batch)).result()
        except RefusedError as refused:
            context.abort(CODES[refused.why], str(refused))
        answer = messages.ModelInferResponse(model_name=served.name, model_version=served.version, id=request.id)
        answer.outputs.add(name=OUTPUT, datatype="FP32", shape=logits.shape)
        answer.raw_output_contents.append(np.ascontiguousarray(logits, dtype="<f4").tobytes())
        return answer

    def _served(self, name: str, version: str, context: Any) -> Served:
        self._check(context)
        try:
            return served_named(self._models, name, version)
        except RefusedError as refused:
            context.abort(CODES[refused.why], str(refused))
            raise  # abort has raised already

    def _check(self, context: Any) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        if self._expected and not hmac.compare_digest(str(given).encode(), self._expected):
            context.abort(CODES["forbidden"], "this server wants its token; set RCTK_TOKEN")


def _images(request: Any, served: Served, most: int) -> FloatNCHW:
    tensor = request.inputs[0] if request.inputs else messages.ModelInferRequest.InferInputTensor()
    shape = list(tensor.shape)
    checked_tensor(served, [each.name for each in request.inputs], tensor.datatype, shape, most)
    if [output.name for output in request.outputs] not in ([], [OUTPUT]):
        raise RefusedError("bad", f"the one output is {OUTPUT!r}")
    for each in (*request.inputs, *request.outputs):
        for key in each.parameters:
            if "shared_memory" in key or key == "classification":
                raise RefusedError("bad", f"this server does not offer {key!r}; send tensors and read logits")
    count = int(np.prod(shape))
    if request.raw_input_contents:
        raw = request.raw_input_contents[0]
        if len(request.raw_input_contents) != 1 or len(raw) != 4 * count:
            raise RefusedError("bad", f"shape {shape} takes {4 * count} bytes, got {len(raw)}")
        return np.frombuffer(raw, dtype="<f4").reshape(shape).astype(np.float32, copy=False)
    values = np.asarray(tensor.contents.fp32_contents, dtype=np.float32)
    if values.size != count:
        raise RefusedError("bad", f"expected {count} numbers in fp32_contents, got {values.size}")
    return values.reshape(shape)
