"""A model behind a server of the Open Inference Protocol v2: `rctk serve`, Triton, OpenVINO Model Server, KServe.

The server says names, shapes and types of the model, and these are checked before the first image leaves. A connection
that breaks and a server that asks to come again (429, 503) are tried again, each time after a longer wait; a call is a
pure function of its images, so nothing is lost by asking twice. A server that does not answer in time is not asked
again. A server whose model changes while it is used is refused: its answers would belong to two models.

The token of the server comes from the environment (``RCTK_TOKEN``, or ``RCTK_TOKEN_FILE``), never from settings, which
stand in records. ``RCTK_CA`` names the certificate to trust where the system does not know it.

Reference:
    KServe, "Open Inference Protocol", version 2. https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from rctk_export.batching import checked, checked_logits, in_fixed_batches, one_input_one_output, pixels
from rctk_export.engine import Source
from rctk_export.engines.remote_address import Address, is_address, read_address
from rctk_export.engines.remote_digits import DIGITS, EVALUATION, OURS
from rctk_export.engines.remote_link import Description, FaultError, Link
from rctk_export.input_spec import FloatNCHW, FloatNK
from rctk_kernels.errors import EngineError, OptionError

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
TRIED_AGAIN = frozenset({"lost", "busy"})
RESUME = "see that it runs, then give the same command again (an attack goes on where it was)"
NEXT_STEP = {
    "lost": RESUME,
    "late": f"{RESUME}; a slow device needs remote:timeout=SECONDS",
    "busy": f"{RESUME}; others may be using it",
    "unknown": "check the name of the model in the address",
    "refused": "mend what it names; remote:batch=N sends smaller batches, RCTK_TOKEN holds a token",
}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Runs a model on a server.

    Attributes:
        url: Such as ``http://jetson:8000/model``, or with ``grpc``, ``https``, ``grpcs``; by default the address that
            was attacked. With a bundle, the server must run that very file.
        batch: Most images in one request.
        timeout: Seconds that a request may take.
        retries: Further tries where the connection breaks or the server is busy.
        binary: Send tensors as bytes; servers without that extension of the protocol need false, and are slow.
    """

    url: str = ""
    batch: int = 64
    timeout: float = 30.0
    retries: int = 5
    binary: bool = True

    def __post_init__(self) -> None:
        if self.batch < 1 or self.retries < 0 or not 0 < self.timeout < float("inf"):
            raise OptionError(
                "remote needs a batch of 1 or more, a positive timeout and no negative retries, got "
                f"{self.batch}, {self.timeout:g} and {self.retries}"
            )
        if self.url:
            read_address(self.url)

    def open(self, source: Source) -> RemoteEngine:
        """Connect to the model of ``source``; :class:`~rctk_kernels.errors.EngineError` where it is another one."""
        return RemoteEngine(source, self)


@final
class RemoteEngine:
    """A served model; see :class:`rctk_export.engine.Engine`. Every thread has a connection of its own.

    Attributes:
        description: What the server says about it.
        notes: What the user should know about it; for printing.
    """

    def __init__(self, source: Source, settings: Remote) -> None:
        if not settings.url and not is_address(source.path):
            raise EngineError(
                "the remote engine needs the address of a server; write remote:url=http://HOST:8000/MODEL"
            )
        self._caller: _Caller | None = _Caller(read_address(settings.url or source.path), settings)
        self._spec, self._settings = source.input, settings
        elsewhere = not is_address(source.path)
        self.description = self._caller.find(source.sha256 if elsewhere else "")
        entry, exit_ = one_input_one_output(
            str(self._caller.address), self.description.inputs, self.description.outputs, source.input
        )
        if exit_.kind != "float32":
            raise EngineError(
                f"output {exit_.name!r} of {self._caller.address} is {exit_.kind}; rctk reads FP32 logits"
            )
        self._input = entry
        self._normalise = None if elsewhere or not source.input.normalises else source.input.mean_std()
        ours = self.description.platform.startswith(OURS)
        if ours and self._normalise is not None:
            raise EngineError("this server normalises images itself; leave --mean and --std away")
        unknown = elsewhere and not ours
        self.notes = ("the server does not say which file it runs: see that it is this one",) if unknown else ()

    def __enter__(self) -> RemoteEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._caller is not None:
            self._caller.close()
        self._caller = None

    def predict(self, images: FloatNCHW) -> FloatNK:
        """Classify a batch; see :class:`rctk_export.engine.Engine`."""
        images, batch = checked(images, self._spec), self._input.batch
        if len(images) == 0:
            return self._run(np.zeros((batch or 1, *self._spec.shape), dtype=np.float32))[:0].copy()
        if batch is not None:
            return in_fixed_batches(images, batch, self._run)
        size = self._settings.batch
        parts = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, images: FloatNCHW) -> FloatNK:
        if self._caller is None:
            raise EngineError("this engine is closed; open it again with `with settings.open(source) as engine:`")
        if self._normalise is not None:
            mean, std = self._normalise
            images = (images - mean) / std
        feed = pixels(images) if self._input.kind == "uint8" else images
        return checked_logits(self._caller.infer(self.description, feed), len(images))


class _Caller:
    """Calls that are tried again, over one link per thread."""

    def __init__(self, address: Address, settings: Remote) -> None:
        self.address, self._settings, self._own = address, settings, threading.local()
        self._seen = ""

    def find(self, sha256: str) -> Description:
        """Return the description of the model at the address, or of that beside it which runs the file ``sha256``."""
        found = self._again(lambda link: link.describe(self.address.model, self.address.version))
        if not found.platform.startswith(OURS):
            return found
        if not sha256 or sha256[:DIGITS] in found.versions:
            self._seen = found.versions[0]
            return found
        try:
            name = self.address.model + EVALUATION
            beside = self._again(lambda link: link.describe(name, ""))
        except EngineError:
            beside = found
        if sha256[:DIGITS] not in beside.versions:
            raise EngineError(
                f"{self.address} runs another file: expected {sha256[:DIGITS]}, it serves {', '.join(found.versions)}; "
                "serve this bundle there, with the same --target"
            )
        self._seen = sha256[:DIGITS]
        return beside

    def infer(self, description: Description, feed: npt.NDArray[Any]) -> FloatNK:
        """Classify one batch; the version that answers must stay the same."""
        logits, version = self._again(lambda link: link.infer(description, self.address.version, feed))
        self._seen = self._seen or version
        if version != self._seen:
            raise EngineError(
                f"{self.address} changed its model from version {self._seen} to {version} while it was used; "
                "serve the first one again, or start anew"
            )
        return np.asarray(logits, dtype=np.float32)

    def close(self) -> None:
        """Hang up, in this thread."""
        link: Link | None = getattr(self._own, "link", None)
        if link is not None:
            link.close()
            del self._own.link

    def _again(self, call: Callable[[Link], T]) -> T:
        """Call until it succeeds, with longer and longer waits; :class:`EngineError` when it will not."""
        wait_s, left = FIRST_WAIT_S, self._settings.retries
        while True:
            try:
                return call(self._link())
            except FaultError as fault:
                self.close()  # whatever is half sent or half read must not meet the next call
                if fault.why not in TRIED_AGAIN or not left:
                    raise self._worded(fault) from fault
            time.sleep(wait_s)
            wait_s, left = min(2 * wait_s, LONGEST_WAIT_S), left - 1

    def _worded(self, fault: FaultError) -> EngineError:
        tries = f" ({self._settings.retries + 1} tries)" if fault.why in TRIED_AGAIN else ""
        return EngineError(f"{self.address}: {fault}{tries}; {NEXT_STEP[fault.why]}")

    def _link(self) -> Link:
        link: Link | None = getattr(self._own, "link", None)
        if link is None:
            link = self._own.link = _connect(self.address, self._settings)
        return link


def _connect(address: Address, settings: Remote) -> Link:
    if address.scheme.startswith("grpc"):
        from rctk_export.engines.remote_grpc import GrpcLink  # noqa: PLC0415  # only the client that is needed

        return GrpcLink(address, settings.timeout)
    from rctk_export.engines.remote_http import HttpLink  # noqa: PLC0415

    return HttpLink(address, settings.timeout, binary=settings.binary)


def describe(address: Address, settings: Remote | None = None) -> Description:
    """Ask a server what it says about a model, with the time-outs and keys of ``settings``."""
    caller = _Caller(address, settings or Remote())
    try:
        return caller.find("")
    finally:
        caller.close()
