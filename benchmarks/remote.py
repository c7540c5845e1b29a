"""What asking an engine over the network of this machine costs, against asking it in process.

    python benchmarks/remote.py BUNDLE [--batch 64] [--seconds 5] [--engine onnxruntime]

Starts `rctk serve BUNDLE` on loopback, with HTTP and gRPC, and gives the engine in process and both ways to the server
turns of half a second on the same images, A B C A B C. Prints images per second, the share of the in-process rate, and
whether all logits are equal bit for bit. Then it runs the same Square attack (seed 0, 100 queries) on each and prints
queries per second and whether the results are equal. The server is a process of its own, as on a device, and shares the
cores with this one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from rctk.attacks import ATTACKS
from rctk.attacks.attack import Predict
from rctk.data.split import Split
from rctk.deployment import open_deployment
from rctk.evaluation.judge import AttackResult, evaluate
from rctk.threat import ThreatModel
from rctk_export.engines import ENGINES
from rctk_export.input_spec import FloatNCHW

TURN_S = 0.5
BATCHES = 4


@contextmanager
def serving(bundle: Path, engine: str) -> Iterator[dict[str, str]]:
    """Serve a bundle; yield the address of each protocol."""
    command = [sys.executable, "-m", "rctk.cli.main", "serve", str(bundle), "--engine", engine, "--port", "0"]
    server = subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found: dict[str, str] = {}
        for line in server.stdout:
            if line.startswith("Ctrl-C"):
                break
            url = line.split()[1]
            found.setdefault(url.partition(":")[0], url)
        yield found
    finally:
        server.terminate()
        server.wait()


def rates(predicts: dict[str, Predict], batches: list[FloatNCHW], seconds: float) -> dict[str, list[float]]:
    """Return images per second of every turn."""
    found: dict[str, list[float]] = {name: [] for name in predicts}
    for _ in range(max(1, round(seconds / TURN_S))):
        for name, predict in predicts.items():
            predict(batches[-1])
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < TURN_S:
                count += len(predict(batches[count % len(batches)]))
            found[name].append(count / (time.perf_counter() - start))
    return found


def attacked(predict: Predict, images: FloatNCHW, batch: int) -> AttackResult:
    """Run Square on images that are labelled with what the engine says."""
    split = Split(name="noise", images=images, labels=predict(images).argmax(axis=1))
    attack = ATTACKS.build("square:queries=100")
    return evaluate(predict, split, attack, ThreatModel(eps=0.5 / 255), seed=0, batch_size=batch)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--engine", default="onnxruntime")
    given = parser.parse_args()
    with ExitStack() as stack:
        deployment = stack.enter_context(open_deployment(given.bundle))
        urls = stack.enter_context(serving(given.bundle, given.engine))
        texts = {"in process": given.engine} | {name: f"remote:url={url}" for name, url in urls.items()}
        engines = {
            name: stack.enter_context(ENGINES.build(text).open(deployment.deployed)) for name, text in texts.items()
        }
        predicts = {name: engine.predict for name, engine in engines.items()}
        rng = np.random.default_rng(0)
        batches = [rng.random((given.batch, *deployment.input.shape), dtype=np.float32) for _ in range(BATCHES)]
        first = predicts["in process"](batches[0])
        found = rates(predicts, batches, given.seconds)
        own = float(np.median(found["in process"]))
        print(f"{deployment.name}, batch {given.batch}, median of {len(found['in process'])} turns of {TURN_S} s")
        for name, values in found.items():
            median, equal = float(np.median(values)), bool(np.array_equal(predicts[name](batches[0]), first))
            print(f"  {name:<10} {median:9.0f} images/s  {median / own:6.1%} of in process  equal logits: {equal}")
        results = {name: attacked(predict, np.concatenate(batches), given.batch) for name, predict in predicts.items()}
    whole = results["in process"]
    print("Square, 100 queries")
    for name, result in results.items():
        rate = result.queries.sum() / result.seconds
        same = bool((result.adversarial == whole.adversarial).all() and (result.queries == whole.queries).all())
        share = rate * whole.seconds / whole.queries.sum()
        print(f"  {name:<10} {rate:9.0f} queries/s {share:6.1%} of in process  equal result: {same}")


if __name__ == "__main__":
    main()
