"""The Open Inference Protocol v2 over HTTP, through tritonclient."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from rctk_export.engines.remote_address import Address
from rctk_export.engines.remote_link import Answer, Description, FaultError, Why, certificates, token_headers
from rctk_kernels.errors import EngineUnavailableError

try:
    import gevent
    import gevent.ssl
    import tritonclient.http as triton
    from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
except (ImportError, RuntimeError) as error:  # tritonclient raises the second without its HTTP parts
    raise EngineUnavailableError(
        "the remote engine needs tritonclient; install it with `pip install 'rctk[remote]'`"
    ) from error

T = TypeVar("T")
STATUS: dict[str, Why] = {"429": "busy", "503": "busy", "502": "lost", "504": "late", "404": "unknown"}


@final
class HttpLink:
    """See :class:`rctk_export.engines.remote_link.Link`."""

    def __init__(self, address: Address, timeout_s: float, *, binary: bool) -> None:
        self._headers, self._binary, self._timeout_s = token_headers(), binary, timeout_s
        trusted = certificates()
        secure = {"ssl": True, "ssl_context_factory": lambda: _context(trusted)} if address.secure else {}
        self._client: Any = triton.InferenceServerClient(
            address.host, connection_timeout=min(timeout_s, 10.0), network_timeout=timeout_s, **secure
        )

    def describe(self, model: str, version: str) -> Description:
        """Ask for names, types and shapes."""
        return Description.of(self._try(lambda: self._client.get_model_metadata(model, version, headers=self._headers)))

    def infer(self, description: Description, version: str, feed: npt.NDArray[Any]) -> Answer:
        """Classify one batch."""
        kind = "UINT8" if feed.dtype == np.uint8 else "FP32"
        entry = triton.InferInput(description.inputs[0].name, list(feed.shape), kind)
        entry.set_data_from_numpy(feed, binary_data=self._binary)
        name = description.outputs[0].name
        wanted = triton.InferRequestedOutput(name, binary_data=self._binary)
        headers = dict(self._headers)  # tritonclient writes into what it is given

        def call() -> Answer:
            result = self._client.infer(description.name, [entry], version, [wanted], headers=headers)
            logits = result.as_numpy(name)
            if logits is None:
                raise FaultError("refused", f"the answer lacks the output {name!r}")
            return Answer(np.asarray(logits), str(result.get_response().get("model_version", "")))

        return self._try(call)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _try(self, call: Callable[[], T]) -> T:
        try:
            with gevent.Timeout(self._timeout_s, TimeoutError("no answer")):  # of the whole call, however it trickles
                return call()
        except triton.InferenceServerException as error:
            why: Why = STATUS.get(str(error.status()), "refused")
            raise FaultError(why, f"HTTP {error.status()}, {error.message()}") from error
        except TimeoutError as error:
            raise FaultError("late", f"no answer within {self._timeout_s:g} s") from error
        except ssl.SSLError as error:
            raise FaultError("refused", f"TLS failed, {error}") from error
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise FaultError("lost", str(error) or type(error).__name__) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # its parser, on what is no such answer
            raise FaultError("refused", f"the answer is not that of the protocol: {error!r}") from error


def _context(trusted: Any) -> ssl.SSLContext:
    context = gevent.ssl.create_default_context(cafile=None if trusted is None else str(trusted))
    assert isinstance(context, ssl.SSLContext)
    return context
