import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not ACTION.is_file(), reason="the action is in the repository, not in a source archive")
RCTK = """#!/bin/sh
for argument in "$@"; do printf '%s\\n' "$argument"; done > arguments.txt
printf '%s' "$RCTK_DATA" > data-root.txt
exit "$CODE"
"""
INPUTS = {
    "BUNDLE": "model-int8",
    "DATA": "digits:test",
    "DATA_ROOT": "",
    "EPS": "8/255",
    "NORM": "linf",
    "MAX_DROP": "0.02",
    "SAMPLES": "",
    "SEED": "0",
    "ATTACKS": "",
    "ENGINE": "onnxruntime",
    "TARGET": "",
    "ALLOW_UNDECIDED": "false",
    "JUNIT": "j.xml",
    "JSON": "c.json",
    "OUT": "runs",
    "GITHUB_STEP_SUMMARY": "summary.md",
    "GITHUB_OUTPUT": "output.txt",
}


def script(step):
    """The text of the ``run: |`` block of a step."""
    block = ACTION.read_text().split(f"name: {step}\n", 1)[1].split("run: |\n", 1)[1]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith(" " * 8):
            break
        lines.append(line[8:])
    return "\n".join(lines)


def run(tmp_path, code=0, **inputs):
    """Run the step as a runner does, with an rctk that notes what it was asked."""
    tool = tmp_path / "bin" / "rctk"
    tool.parent.mkdir()
    tool.write_text(RCTK)
    tool.chmod(0o755)
    environment = {**INPUTS, **inputs, "CODE": str(code), "PATH": f"{tool.parent}:/usr/bin:/bin"}
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script("Compare")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output.txt").read_text().splitlines())
    return done.returncode, outputs, (tmp_path / "arguments.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(0, "holds"), (1, "does not hold"), (3, "not enough samples"), (2, "error"), (70, "error")],
)
def test_the_step_passes_the_exit_code_on_and_names_it(tmp_path, code, outcome):
    assert run(tmp_path, code)[:2] == (code, {"exit-code": str(code), "outcome": outcome})


@pytest.mark.parametrize(("code", "passes"), [(0, 0), (1, 1), (2, 2), (3, 0)])
def test_only_an_undecided_gate_can_be_let_pass(tmp_path, code, passes):
    assert run(tmp_path, code, ALLOW_UNDECIDED="true")[0] == passes


def test_empty_inputs_are_left_to_the_defaults_of_rctk(tmp_path):
    assert run(tmp_path)[2] == [
        "compare",
        "model-int8",
        "--data=digits:test",
        "--eps=8/255",
        "--norm=linf",
        "--max-drop=0.02",
        "--seed=0",
        "--engine=onnxruntime",
        "--out=runs",
        "--summary=summary.md",
        "--junit=j.xml",
        "--json=c.json",
    ]


def test_every_line_is_an_attack_and_the_data_root_is_set(tmp_path):
    _, _, arguments = run(tmp_path, ATTACKS="pgd:steps=5\n\nsquare:queries=10\n", SAMPLES="50", DATA_ROOT="/data")
    assert arguments[-2:] == ["--attack=pgd:steps=5", "--attack=square:queries=10"]
    assert "--samples=50" in arguments
    assert (tmp_path / "data-root.txt").read_text() == "/data"


def test_a_hostile_input_stays_one_argument(tmp_path):
    hostile = '"; touch hacked; $(touch hacked) `touch hacked` * --out=x'
    _, _, arguments = run(tmp_path, DATA=hostile)
    assert f"--data={hostile}" in arguments
    assert not (tmp_path / "hacked").exists()


def test_no_input_is_pasted_into_a_script():
    for step in ("Install rctk", "Compare"):
        assert "${{" not in script(step)


def test_every_flag_of_the_action_exists():
    main = "from rctk.cli.main import main; main(['compare', '--help'])"
    shown = subprocess.run([sys.executable, "-c", main], capture_output=True, check=True)
    known = set(re.findall(r"--[a-z][a-z-]+", shown.stdout.decode()))
    assert set(re.findall(r'"(--[a-z-]+)=', script("Compare"))) <= known


@pytest.mark.parametrize("path", [ACTION, *WORKFLOWS], ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_commit_with_their_version_beside(path):
    for line in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"\./|[\w-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", line) or line.startswith("OWNER/"), line
