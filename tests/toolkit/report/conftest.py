import numpy as np
import pytest

from rctk.gate import compare_paired
from rctk.records import Record
from rctk.statistics import wilson

MACHINE = {
    "cpu": "Example CPU 3000",
    "cores_physical": 2,
    "cores_logical": 4,
    "memory_bytes": 16 * 2**30,
    "gpus": [],
    "os": "Example Linux 12",
    "load_average": [0.1, 0.2, 0.3],
}
VERSIONS = {"python": "3.11.9", "rctk": "0.1.0", "numpy": "2.4.6", "onnxruntime": "1.31.1"}
THREAT = {"norm": "linf", "eps": 8 / 255}


def of(kind, subject, settings, values, machine=MACHINE):
    return Record.of(kind, subject, settings, values, machine=machine, versions=VERSIONS)


def subject_of(name, side):
    role, target = ("float", "") if side == "float" else ("int8", "cpu")
    engine = "twin" if side == "twin" else "onnxruntime"
    return {"name": name, "sha256": name * 4, "role": role, "target": target, "engine": engine}


def bench(name, side, rng, *, batch=1, times=True):
    median = (1.0 if side == "float" else 0.35) * (1 + rng.random()) * batch
    calls = median * (0.97 + 0.1 * rng.gamma(1.0, 0.5, 200))
    ends = np.percentile(calls, [0, 50, 90, 95, 99, 100])
    values = dict(zip(("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"), ends, strict=True))
    values |= {"calls": 200, "images_per_s": 1000 * batch / median, "speedup": 1.0 if side == "float" else 2.9}
    values |= {"file_bytes": 1_100_000 if side == "float" else 290_000, "peak_rss_bytes": 90_000_000}
    settings = {"batch": batch, "threads": 1, "warmup": 20, "calls": 200}
    return of("bench", subject_of(name, side), settings, values | ({"times_ms": calls} if times else {}))


def compare(name, rng, n=1000, drop=0.005):
    clean = rng.random(n) < 0.9
    engine_clean = clean ^ (rng.random(n) < 0.01)
    robust = clean & (rng.random(n) < 0.5)
    engine_robust = engine_clean & robust & (rng.random(n) >= 2 * drop)
    values = compare_paired(clean, robust, engine_clean, engine_robust, max_drop=0.02).as_dict()
    settings = {
        **THREAT,
        "attacks": ["apgd-ce", "square:queries=500"],
        "data": "digits:test",
        "seed": 0,
        "max_drop": 0.02,
    }
    subject = {key: value for key, value in subject_of(name, "engine").items() if key != "role"}
    return of("compare", subject, settings, values)


def attack(name, side, rng, n=500):
    clean, robust = int(rng.integers(430, 480)), int(rng.integers(150, 300))
    values = {"samples": n, "queries": 100_000, "forward_passes": 50_000, "backward_passes": 49_000, "seconds": 12.3}
    for kind, count in (("clean", clean), ("robust", robust)):
        low, high = wilson(count, n)
        values |= {f"{kind}_accuracy": count / n, f"{kind}_low": low, f"{kind}_high": high}
    settings = {
        **THREAT,
        "attack": "apgd-ce + square:queries=500",
        "crafted_on": "all",
        "data": "digits:test",
        "seed": 0,
    }
    return of("attack", subject_of(name, side), settings, values)


def export(name):
    agreement = {"agreement_clean": 0.998, "agreement_adversarial": 0.985, "flip_rate": 0.0007, "samples": 512}
    files = [{"role": "float", "target": "", "size_bytes": 1_100_000}]
    files += [{"role": "int8", "target": target, "size_bytes": 290_000, **agreement} for target in ("cpu", "tensorrt")]
    return of("export", {"name": name, "sha256": name * 4}, {"calibrator": "minmax"}, {"files": files})


def train(name):
    epochs = [{"number": i, "clean_accuracy": 0.8 + i / 100, "robust_accuracy": 0.4 + i / 100} for i in (1, 2)]
    settings = {"arch": "digits-cnn", "data": "digits:train", "objective": {"eps": 0.15}, "seed": 0}
    return of("train", {"name": name}, settings, {"epochs": epochs, "samples": 143})


def run_of(name, seed=0, *, times=True):
    """Everything that one model goes through."""
    rng = np.random.default_rng(seed)
    return [
        train(f"{name}.pt"),
        export(name),
        *(attack(name, side, rng) for side in ("float", "twin", "engine")),
        *(bench(name, side, rng, times=times) for side in ("float", "engine")),
        compare(name, rng),
    ]


@pytest.fixture(scope="session")
def records():
    return run_of("digits-cnn")


@pytest.fixture(scope="session")
def many_records():
    """200 records of 25 models on two machines."""
    found = [record for i in range(25) for record in run_of(f"model-{i:02}", i, times=i % 2 == 0)]
    other = {**MACHINE, "cpu": "Another CPU", "load_average": [9.0, 9.0, 9.0]}
    found[-1] = of("compare", found[-1].subject, found[-1].settings, found[-1].values, machine=other)
    assert len(found) == 200
    return found


@pytest.fixture(scope="session")
def hostile_records():
    return run_of('<script>alert(1)</script> <b onload="x">"q" $x^2$ $ \x1b[31m [red] a|b `c` 你好 \x00')
