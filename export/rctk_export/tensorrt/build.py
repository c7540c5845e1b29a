"""From a Q/DQ graph to a plan: network, optimization profile, builder configuration, serialized engine."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rctk_export.tensorrt.api import Messages, flag, generation, optional, start_builder, start_runtime, trt
from rctk_export.tensorrt.expected import Expected, expected_layers, quantizes
from rctk_export.tensorrt.options import BuildOptions
from rctk_kernels.errors import EngineError, OptionError

MIB = 2**20
OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation")
WORKSPACE = ("workspace", "insufficient memory", "could not find any implementation", "no implementation")


class Built(NamedTuple):
    """What a build leaves."""

    plan: bytes
    layers: str
    """The engine inspector's JSON, detailed."""
    expected: tuple[Expected, ...]
    """What the network asked for, layer by layer."""
    batches: tuple[int, int, int]
    """Fewest, tuned-for and most images of a call, as the profile or the file says."""
    device_memory_bytes: int
    """Scratch memory of one execution context."""
    timing_cache: bytes
    warnings: tuple[str, ...]
    """What TensorRT warned of."""


def build_plan(
    content: bytes, name: str, options: BuildOptions, typing: Literal["strong", "weak"], timing_cache: bytes = b""
) -> Built:
    """Build a plan on the current CUDA device.

    Args:
        content: The ONNX file, weights inside.
        name: What to call it in messages.
        options: See :class:`~rctk_export.tensorrt.options.BuildOptions`; ``typing`` has been decided.
        typing: ``strong`` takes every type from the file.
        timing_cache: What an earlier build on this GPU left; empty for none.
    """
    messages = Messages()
    logger = messages.logger()
    builder = start_builder(logger, messages)
    network = builder.create_network(_network_flags(typing))
    _parse(network, logger, content, name)
    config = builder.create_builder_config()
    batches = _profile(builder, network, config, options, name)
    _configure(builder, network, config, options, typing)
    cache = _timing_cache(config, timing_cache)  # kept alive until the build ends
    expected = tuple(expected_layers(network))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(_why(messages, name, options))
    plan = bytes(memoryview(serialized))
    saved = config.get_timing_cache()
    timing = bytes(memoryview(saved.serialize())) if saved is not None else b""
    del cache
    layers, scratch = _look_into(plan, logger, messages, options)
    return Built(plan, layers, expected, batches, scratch, timing, tuple(messages.warnings))


def _network_flags(typing: str) -> int:
    """Say what the network is; in 11 every network is strongly typed and the flag may go away."""
    kind = optional(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    return 1 << int(kind) if typing == "strong" and kind is not None else 0  # its number is 1 in 10 and 0 in 11


def _parse(network: trt.INetworkDefinition, logger: trt.ILogger, content: bytes, name: str) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(content):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    texts = [f"{e.node_operator()} {e.node_name()!r}: {' '.join(e.desc().split())}" for e in errors]
    more = f" ({len(texts) - 1} more)" if len(texts) > 1 else ""
    raise EngineError(
        f"TensorRT {trt.__version__} cannot read {name}: {texts[0] if texts else 'it gave no reason'}{more}; see what "
        f"`rctk inspect {name} --target tensorrt` says"
    )


def _profile(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    options: BuildOptions,
    name: str,
) -> tuple[int, int, int]:
    """Add the range of batches, and return it; a file of fixed batch needs none and allows no other."""
    entry = _only_input(network, name)
    shape = [int(entry.shape[i]) for i in range(len(entry.shape))]
    wanted = (options.min_batch, options.opt_batch, options.max_batch)
    free = [i for i, size in enumerate(shape) if size < 0]
    if free not in ([], [0]):
        raise EngineError(
            f"input {entry.name!r} of {name} has the shape {shape}: dimensions {free} are free and no profile covers "
            "them, only the batch may be; export it again with its image size (--input)"
        )
    if not free:
        if {shape[0]} != set(wanted):
            raise OptionError(
                f"{name} takes batches of exactly {shape[0]}, the profile asks for {wanted[0]} to {wanted[2]}; use "
                f"--min-batch, --opt-batch and --max-batch {shape[0]}, or export with a free batch"
            )
        return wanted
    if options.dla is not None:
        raise OptionError(f"DLA takes no free batch, {name} has one; export it with the fixed batch {wanted[0]}")
    profile = builder.create_optimization_profile()
    low, tuned, high = (trt.Dims([batch, *shape[1:]]) for batch in wanted)
    profile.set_shape(entry.name, low, tuned, high)
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT rejects batches {wanted[0]} to {wanted[2]} tuned for {wanted[1]}; choose others")
    return wanted


def _only_input(network: trt.INetworkDefinition, name: str) -> trt.ITensor:
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise EngineError(
            f"{name} has {network.num_inputs} inputs and {network.num_outputs} outputs; rctk runs one of each"
        )
    return network.get_input(0)


def _configure(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    options: BuildOptions,
    typing: str,
) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # otherwise nobody can see what runs in int8
    config.builder_optimization_level = options.optimization_level
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.precision_rest == "fp32" and not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default
    if options.sparsity:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware != "none":
        level = options.hardware.upper().replace("-", "_")
        config.hardware_compatibility_level = flag(
            trt.HardwareCompatibilityLevel, level, f"--hardware {options.hardware}"
        )
    if typing == "weak":
        _weak_precisions(network, config, options)
    if options.dla is not None:
        _dla(builder, config, options.dla)


def _weak_precisions(network: trt.INetworkDefinition, config: trt.IBuilderConfig, options: BuildOptions) -> None:
    """Allow TensorRT 10 the precisions among which it chooses; a Q/DQ file without INT8 is refused."""
    if quantizes(network):
        config.set_flag(flag(trt.BuilderFlag, "INT8", "weak typing"))
    if options.precision_rest != "fp32":
        config.set_flag(flag(trt.BuilderFlag, options.precision_rest.upper(), f"weakly typed {options.precision_rest}"))


def _dla(builder: trt.Builder, config: trt.IBuilderConfig, core: int) -> None:
    cores = builder.num_DLA_cores
    if core >= cores:
        raise OptionError(
            f"TensorRT {trt.__version__} finds {cores or 'no'} DLA cores here, core {core} was asked for; DLA is on "
            "Orin, with TensorRT 10.3 to 10.7 and from 11.4.1: leave --dla away"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _timing_cache(config: trt.IBuilderConfig, content: bytes) -> trt.ITimingCache:
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError(
            f"the timing cache does not fit this GPU and TensorRT {trt.__version__}; delete it, or name another file "
            "with --timing-cache"
        )
    return cache


def _why(messages: Messages, name: str, options: BuildOptions) -> str:
    found = f"TensorRT {trt.__version__} built no engine from {name}: {messages.reason()}"
    if messages.mentions(*OUT_OF_MEMORY):
        smaller = max(options.min_batch, options.max_batch // 2)
        return f"{found}; out of device memory: free some, or use a smaller batch (--max-batch {smaller})"
    if options.workspace_mib and messages.mentions(*WORKSPACE):
        return f"{found}; --workspace-mib {options.workspace_mib} may be too small: give {options.workspace_mib * 4}"
    return f"{found}; look at the file with `rctk inspect`"


def _look_into(plan: bytes, logger: trt.ILogger, messages: Messages, options: BuildOptions) -> tuple[str, int]:
    """Open the new plan and return what its inspector says, and how much scratch memory it wants."""
    runtime = start_runtime(logger, messages)
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # the plan was made a moment ago, by us
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT cannot load the plan that it has just built: {messages.reason()}")
    layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return str(layers), int(engine.device_memory_size_v2)


def decide_typing(options: BuildOptions, *, rewritten: bool) -> Literal["strong", "weak"]:
    """Choose the typing that ``options`` and this TensorRT allow.

    Args:
        options: With ``typing`` as the user gave it.
        rewritten: Whether ``precision_rest`` is written into the file.
    """
    major, _ = generation()
    must = options.dla is not None or (options.precision_rest != "fp32" and not rewritten)
    if major >= 11:
        if options.typing == "weak":
            raise OptionError(f"TensorRT {trt.__version__} is always strongly typed; leave --typing weak away")
        if options.precision_rest != "fp32" and not rewritten:
            raise OptionError(
                f"TensorRT {trt.__version__} takes {options.precision_rest} from the file only, and writing it there "
                "needs the onnx package; `pip install onnx`, or leave --precision-rest away"
            )
        return "strong"
    if options.typing == "auto":
        return "weak" if must else "strong"
    if options.typing == "strong" and must:
        raise OptionError(
            "strong typing cannot be had here: on TensorRT 10 DLA is for weak typing, and --precision-rest needs the "
            "onnx package to write it into the file; leave --typing away"
        )
    return options.typing
