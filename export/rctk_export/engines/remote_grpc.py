"""The Open Inference Protocol v2 over gRPC, through tritonclient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from rctk_export.engines.remote_address import Address
from rctk_export.engines.remote_link import Answer, Description, FaultError, Why, certificates, token_headers
from rctk_kernels.errors import EngineUnavailableError

try:
    import tritonclient.grpc as triton
except (ImportError, RuntimeError) as error:  # tritonclient raises the second without its gRPC parts
    raise EngineUnavailableError(
        "grpc:// needs tritonclient, grpcio and protobuf; install them with `pip install 'rctk[remote]'`, or use http://"
    ) from error

T = TypeVar("T")
STATUS: dict[str, Why] = {
    "StatusCode.UNAVAILABLE": "lost",
    "StatusCode.RESOURCE_EXHAUSTED": "busy",
    "StatusCode.DEADLINE_EXCEEDED": "late",
    "StatusCode.NOT_FOUND": "unknown",
}


@final
class GrpcLink:
    """See :class:`rctk_export.engines.remote_link.Link`."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._headers, self._timeout_s = token_headers(), timeout_s
        trusted = certificates()
        roots = None if trusted is None else str(trusted)
        secure = {"ssl": True, "root_certificates": roots} if address.secure else {}
        self._client: Any = triton.InferenceServerClient(address.host, **secure)

    def describe(self, model: str, version: str) -> Description:
        """Ask for names, types and shapes."""
        call = self._client.get_model_metadata
        return Description.of(
            self._try(lambda: call(model, version, headers=self._headers, as_json=True, client_timeout=self._timeout_s))
        )

    def infer(self, description: Description, version: str, feed: npt.NDArray[Any]) -> Answer:
        """Classify one batch."""
        kind = "UINT8" if feed.dtype == np.uint8 else "FP32"
        entry = triton.InferInput(description.inputs[0].name, list(feed.shape), kind)
        entry.set_data_from_numpy(feed)
        name = description.outputs[0].name

        def call() -> Answer:
            result = self._client.infer(
                description.name,
                [entry],
                version,
                [triton.InferRequestedOutput(name)],
                headers=self._headers,
                client_timeout=self._timeout_s,
            )
            logits = result.as_numpy(name)
            if logits is None:
                raise FaultError("refused", f"the answer lacks the output {name!r}")
            return Answer(np.asarray(logits), str(result.get_response().model_version))

        return self._try(call)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except triton.InferenceServerException as error:
            why: Why = STATUS.get(str(error.status()), "refused")
            text = f"no answer within {self._timeout_s:g} s" if why == "late" else str(error.message())
            raise FaultError(why, text) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # its parser, on what is no such answer
            raise FaultError("refused", f"the answer is not that of the protocol: {error!r}") from error
