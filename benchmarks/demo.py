"""The main job from start to end on scikit-learn's digits, as a user would type it: `make demo`.

Everything is written below `demo/`. The last lines are a summary table and the path of an HTML report.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rctk.cli.console import table
from rctk.records import Record, read_records

FOLDER = Path("demo")
MODEL, BUNDLE, RUNS = FOLDER / "digits.pt", FOLDER / "digits-int8", FOLDER / "runs"
COMMANDS = (
    f"rctk train --arch digits-cnn --data digits:train --objective train.pgd_at:eps=0.15 -o {MODEL} --records {RUNS}",
    f"rctk export --int8 {MODEL} --calibration digits:train --check-eps 0.1 -o {BUNDLE} --force --records {RUNS}",
    f"rctk bench {BUNDLE} --engine onnxruntime --out {RUNS}",
    f"rctk compare {BUNDLE} --data digits:test --eps 0.1 --max-drop 0.03 --out {RUNS}",
    f"rctk report {RUNS}",
)


def main() -> int:
    """Run the commands one after the other; stop at the first that fails."""
    shutil.rmtree(RUNS, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    started = time.perf_counter()
    for command in COMMANDS:
        print(f"\n$ {command}", flush=True)
        code = subprocess.run(shlex.split(command), check=False).returncode
        if code not in {0, 1, 3} or (code and "compare" not in command):
            return code
    summary(read_records(RUNS))
    print(f"{time.perf_counter() - started:.0f} s in all")
    return 0


def summary(records: list[Record]) -> None:
    """Print the one table that answers the question of the demo."""
    last = {(record.kind, record.subject.get("role")): record.values for record in records}
    compare, floats, int8 = last["compare", None], last["bench", "float"], last["bench", "int8"]
    rows = [
        ("clean accuracy", *(f"{compare['clean'][f'{side}_accuracy']:.1%}" for side in ("float", "engine"))),
        ("robust accuracy", *(f"{compare['robust'][f'{side}_accuracy']:.1%}" for side in ("float", "engine"))),
        ("median latency, batch 1", *(f"{values['median_ms']:.4f} ms" for values in (floats, int8))),
        ("file", *(f"{values['file_bytes']:,} bytes" for values in (floats, int8))),
        ("verdict", "", compare["outcome"]),
    ]
    table(f"digits, {compare['samples']} images", ("", "float", "int8 engine"), rows)
    print(f"report: {(RUNS / 'report.html').resolve()}")


if __name__ == "__main__":
    sys.exit(main())
