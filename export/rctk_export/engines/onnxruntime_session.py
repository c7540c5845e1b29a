"""Sessions of ONNX Runtime that run where they were told to, or do not open.

ONNX Runtime by itself drops a provider that does not load, and gives operators that a provider lacks to the processor,
both with no more than a line in its log. Here the first is an error with the reason, the second one that names the
nodes: the session forbids it (``session.disable_cpu_ep_fallback``), and what was put where is read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rctk_export.batching import End, one_input_one_output
from rctk_export.engine import Source
from rctk_export.engines.onnxruntime_wheel import CPU, LOADING, ort
from rctk_export.input_spec import InputSpec
from rctk_kernels.errors import EngineError, EngineUnavailableError

FATAL, WARNING = 4, 2  # log levels; what goes wrong is raised, so nothing needs to print
FLOAT_BIAS = frozenset({"tensorrt", "cpu-mirror"})
"""Targets whose biases are float because TensorRT keeps them so. On the CPU the optimiser would round them to int32
(``WeightBiasQuantization``), which moves 5 % of a ResNet-20's activation codes; for these files that pass is off."""
KINDS = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
"""ONNX Runtime's words for the types that :class:`~rctk_export.batching.End` names."""
SHOWN = 5
"""Nodes that an error names; the others are counted."""

Placement = Mapping[str, tuple[str, ...]]
"""Provider to the nodes that it runs, as ``name (Operator)``; empty where this ONNX Runtime does not tell."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked of ONNX Runtime.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        options: Of the provider; only those that differ from its defaults, so that older versions know them.
        rest: Providers that may take what the first one lacks, with their options.
        device: A device of a plug-in provider; None for a provider of the build itself.
        threads: Threads that share one operator.
        optimize: Fuse operators.
        spinning: Let idle threads spin.
        remedy: The next step where operators cannot be placed.
    """

    provider: str = CPU
    options: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[tuple[str, Mapping[str, str]], ...] = ()
    device: Any = None
    threads: int = 1
    optimize: bool = True
    spinning: bool = False
    remedy: str = "export without those operators, or use --engine onnxruntime"

    def allowed(self) -> tuple[str, ...]:
        """Return the providers that nodes may run on."""
        return (self.provider, *(name for name, _ in self.rest))


class Opened(NamedTuple):
    """A session and what is known about it."""

    session: Any
    entry: End
    exit: End
    placement: Placement


def ends(session: Any, model: str, spec: InputSpec) -> tuple[End, End]:
    """Return input and output of a session; :class:`EngineError` unless there is one of each, with images of spec."""
    inputs, outputs = ([_end(end) for end in found()] for found in (session.get_inputs, session.get_outputs))
    return one_input_one_output(model, inputs, outputs, spec)


def look_into(source: Source) -> tuple[End, End]:
    """Return input and output of a file without building anything for it."""
    opened = open_session(source, Order(optimize=False))
    return opened.entry, opened.exit


def open_session(source: Source, order: Order) -> Opened:
    """Load ``source`` as ordered.

    Raises:
        EngineUnavailableError: The provider is there and did not start; with the reason.
        EngineError: The file cannot be loaded, nodes cannot be placed, or an option came out otherwise.
    """
    strict = order.provider != CPU
    try:
        session = _create(source, order, strict=strict)
    except LOADING as error:
        if strict:
            _explain(source, order)
        raise EngineError(f"ONNX Runtime cannot load {source.path}: {one_line(error)}") from error
    session.disable_fallback()
    _check_started(session, order)
    _check_options(session, order)
    placed = read_placement(session)
    if strict:
        _check_placed(source, order, placed)
    return Opened(session, *ends(session, source.path.name, source.input), placed)


def read_placement(session: Any) -> dict[str, tuple[str, ...]]:
    """Return which provider runs which nodes; see :data:`Placement`."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return {}
    found: dict[str, list[str]] = {}
    for part in tell():
        found.setdefault(str(part.ep_name), []).extend(f"{node.name} ({node.op_type})" for node in part.get_nodes())
    return {name: tuple(nodes) for name, nodes in found.items()}


def some(nodes: tuple[str, ...]) -> str:
    """Return the first few of many names.

    Example:
        >>> some(("a", "b", "c", "d", "e", "f", "g"))
        'a, b, c, d, e and 2 more'
    """
    more = len(nodes) - SHOWN
    return ", ".join(nodes[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def unwanted_passes(target: str) -> list[str]:
    """Return the optimiser passes that would make the file of ``target`` compute something else than it says."""
    return ["WeightBiasQuantization"] if target in FLOAT_BIAS else []


def one_line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split())[:400]


def _create(source: Source, order: Order, *, strict: bool) -> Any:
    if not source.path.is_file():
        raise EngineError(f"no model file at {source.path}; give the path of an .onnx file or a bundle")
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = order.threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if order.optimize else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(order.spinning)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    how: dict[str, Any] = {"disabled_optimizers": unwanted_passes(source.target), "enable_fallback": 0}
    if order.device is None:
        how["providers"] = [(name, dict(given)) for name, given in ((order.provider, order.options), *order.rest)]
    else:
        options.add_provider_for_devices([order.device], dict(order.options))
    with _silence(on=strict):
        return ort.InferenceSession(_model(source.path), options, **how)


@contextmanager
def _silence(*, on: bool) -> Iterator[None]:
    """Keep ONNX Runtime's own log quiet while a provider loads: what it says there, we say in the error."""
    if not on:
        yield
        return
    ort.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(WARNING)  # ONNX Runtime's default; it cannot be asked


def _explain(source: Source, order: Order) -> None:
    """Raise the error that ONNX Runtime did not tell: the provider did not start, or these nodes are not for it."""
    from rctk_export.engines.onnxruntime_provider import load_failure  # noqa: PLC0415  # only after a failure

    reason = load_failure(order.provider)
    if reason:
        raise EngineUnavailableError(f"{order.provider} did not start: {reason}")
    try:
        session = _create(source, order, strict=False)
    except LOADING:
        return  # the first error says why
    _check_started(session, order)
    _check_placed(source, order, read_placement(session))
    raise EngineError(
        f"{order.provider} cannot run all nodes of {source.path.name}, and ONNX Runtime {ort.__version__} does not "
        f"tell which (1.24 does); {order.remedy}"
    )


def _check_started(session: Any, order: Order) -> None:
    running = session.get_providers()
    if not running or running[0] != order.provider:
        raise EngineUnavailableError(
            f"{order.provider} did not start, ONNX Runtime offers {', '.join(running)} instead and gives no reason; "
            "see what `rctk doctor` says about driver and libraries"
        )


def _check_options(session: Any, order: Order) -> None:
    effective = session.get_provider_options().get(order.provider, {})
    for key, wanted in order.options.items():
        found = effective.get(key, wanted)
        if wanted.isalnum() and found.lower() != wanted.lower():
            raise EngineError(f"{order.provider} runs with {key}={found} though {wanted} was asked for; leave it away")


def _check_placed(source: Source, order: Order, placed: Placement) -> None:
    lost = tuple(node for name, nodes in placed.items() if name not in order.allowed() for node in nodes)
    if lost:
        total = sum(len(nodes) for nodes in placed.values())
        raise EngineError(
            f"{order.provider} cannot run {len(lost)} of {total} nodes of {source.path.name} ({some(lost)}) and they "
            f"would run on the CPU; {order.remedy}"
        )


def _model(path: Path) -> str | bytes:
    """Return what ONNX Runtime opens: a name, or the content where the name is no UTF-8, which it cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _end(end: Any) -> End:
    sizes = tuple(size if isinstance(size, int) else None for size in end.shape)
    return End(end.name, KINDS.get(end.type, end.type), sizes)
