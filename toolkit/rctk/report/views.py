"""Tables of what one model did: the gate, attacks, stress, times, files, training."""

from __future__ import annotations

from typing import Any

from rctk.records import Record
from rctk.report.columns import (
    BUDGET,
    FILE,
    SEED,
    Column,
    Part,
    View,
    between,
    file_name,
    numbers,
    of_subject,
    value,
    whole,
    words,
)
from rctk.report.conditions import pause, power_mode, scenario
from rctk.report.words import milliseconds, number, p_value, percent, points, points_between, size


def _gates(record: Record) -> list[Part]:
    gates = {name: numbers(record.values.get(name)) for name in ("clean", "robust")}
    return [
        {**record.settings, "gate": name, "samples": record.values.get("samples"), **g} for name, g in gates.items()
    ]


def _files(record: Record) -> list[Part]:
    files = record.values.get("files")
    return [{**record.settings, **numbers(file)} for file in (files if isinstance(files, list | tuple) else [{}])]


def _epochs(record: Record) -> list[Part]:
    epochs = record.values.get("epochs")
    listed = list(epochs) if isinstance(epochs, list | tuple) else []
    return [{**record.settings, **record.values, "last": numbers(listed[-1]) if listed else {}, "count": len(listed)}]


def _needed(_: Record, part: Part) -> str:
    if part.get("samples_to_decide") is None and part.get("samples_if_equal") is not None:
        return f"{number(part['samples_if_equal'])} if equal"
    return number(part.get("samples_to_decide"))


def _discordant(_: Record, part: Part) -> str:
    return f"{number(part.get('float_only'))} : {number(part.get('engine_only'))}"


def _difference(_: Record, part: Part) -> str:
    return points_between(part.get("difference"), part.get("difference_low"), part.get("difference_high"))


def _bounds(_: Record, part: Part) -> str:
    return f"[{points(part.get('lower_bound'), 2)}, {points(part.get('upper_bound'), 2)}]"


def _ratio(value: Any) -> str:
    return number(value, "{:.2f} x")


VIEWS = (
    View(
        "compare",
        "Float against deployed",
        "The same images and the same adversarial candidates for both. Accuracies with Wilson's 95 % interval; the "
        "difference is engine minus float with Tango's 95 % interval; the bounds are one-sided 95 %. A robust accuracy "
        "is an upper limit: a stronger attack may lower it.",
        _gates,
        (
            FILE,
            words("gate"),
            value("images", "samples", number),
            words("outcome", "verdict"),
            between("float accuracy", "float_accuracy", "float_low", "float_high"),
            between("engine accuracy", "engine_accuracy", "engine_low", "engine_high"),
            Column("difference, points", _difference),
            BUDGET,
            value("allowed drop, points", "max_drop", lambda value: points(value).lstrip("+"), detail=True),
            Column("bounds, points", _bounds, detail=True),
            Column("right alone, float : engine", _discordant, detail=True),
            value("McNemar p", "mcnemar_p", p_value, detail=True),
            Column("images to decide", _needed, detail=True),
            of_subject("engine", detail=True),
            words("data", detail=True),
            words("attacks", detail=True),
            SEED,
        ),
    ),
    View(
        "attack",
        "Attacks",
        "Accuracies with Wilson's 95 % interval. Queries go to the engine, passes through the model whose gradient was "
        "used. A robust accuracy is an upper limit.",
        whole,
        (
            FILE,
            of_subject("engine"),
            value("images", "samples", number),
            between("clean accuracy", "clean_accuracy", "clean_low", "clean_high"),
            between("robust accuracy", "robust_accuracy", "robust_low", "robust_high"),
            BUDGET,
            words("attack"),
            words("crafted_on", "crafted on", detail=True),
            words("data", detail=True),
            value("queries", "queries", number, detail=True),
            value("forward", "forward_passes", number, detail=True),
            value("backward", "backward_passes", number, detail=True),
            value("mean linf", "mean_linf", lambda value: number(value, "{:.4f}"), detail=True),
            value("mean l2", "mean_l2", lambda value: number(value, "{:.3f}"), detail=True),
            value("s", "seconds", lambda value: number(value, "{:,.1f}"), detail=True),
            SEED,
        ),
    ),
    View(
        "stress",
        "Stress that nobody crafted",
        "mPC is the mean accuracy over the benchmark's corruption types and severities with a bootstrap interval over "
        "images, mCE the mean corruption error as a share of the baseline's, both on the same images.",
        whole,
        (
            FILE,
            of_subject("engine"),
            value("images", "samples", number),
            between("clean accuracy", "clean_accuracy", "clean_low", "clean_high"),
            between("mPC", "mpc", "mpc_low", "mpc_high"),
            value("mCE", "mce", percent),
            words("mce_baseline", "baseline"),
            value("held-out types", "held_out_accuracy", percent, detail=True),
            words("data", detail=True),
            SEED,
        ),
    ),
    View(
        "bench",
        "Latency, throughput and memory",
        "Milliseconds per query, after warm-up: one batch, in a multi-stream scenario one per stream. The speed-up is "
        "the median of the float engine in the same run over this median. Compare times only within one machine, power "
        "mode, scenario and pause.",
        whole,
        (
            FILE,
            of_subject("engine"),
            Column("power mode", lambda _, part: power_mode(part), right=False, sparse=True),
            value("batch", "batch", number),
            value("threads", "threads", number),
            Column("scenario", lambda _, part: scenario(part), right=False, sparse=True),
            value("pause, ms", "gap_ms", pause, sparse=True),
            value("median ms", "median_ms", milliseconds),
            value("p95 ms", "p95_ms", milliseconds),
            value("p99 ms", "p99_ms", milliseconds, detail=True),
            value("speed-up", "speedup", _ratio),
            value("images/s", "images_per_s", number),
            value("size", "file_bytes", size),
            value("calls", "calls", number),
            value("warm-up", "warmup", number, detail=True),
            value("min ms", "min_ms", milliseconds, detail=True),
            value("p90 ms", "p90_ms", milliseconds, detail=True),
            value("max ms", "max_ms", milliseconds, detail=True),
            value("peak memory", "peak_rss_bytes", size, detail=True),
        ),
    ),
    View(
        "export",
        "Exported files",
        "Agreement is the share of images to which an int8 file gives the class of its float parent, and of its twin.",
        _files,
        (
            of_subject("name", "model"),
            Column("file", lambda _, part: file_name(part), right=False),
            value("size", "size_bytes", size),
            value("images", "samples", number),
            value("as float", "agreement_float", percent),
            value("agrees, clean", "agreement_clean", percent),
            value("agrees, adversarial", "agreement_adversarial", percent),
            value("codes flipped", "flip_rate", lambda value: number(value, "{:.2%}")),
            words("calibrator", detail=True),
        ),
    ),
    View(
        "train",
        "Training",
        "Accuracies of the last epoch on the validation images, robust accuracy under the validation attack.",
        _epochs,
        (
            of_subject("name", "model"),
            words("arch", "architecture"),
            words("data", detail=True),
            words("objective", detail=True),
            value("epochs", "count", number),
            value("images", "samples", number),
            Column("clean", lambda _, part: percent(part["last"].get("clean_accuracy"))),
            Column("robust", lambda _, part: percent(part["last"].get("robust_accuracy"))),
            SEED,
        ),
    ),
)
