from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rctk import machine

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni amx_bf16 avx512_bf16 amx_tile amx_int8 avx_vnni
bugs\t\t: spectre_v1
power management:

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni amx_bf16 avx512_bf16 amx_tile amx_int8 avx_vnni
"""
OLD_X86 = "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i5-3320M CPU @ 2.60GHz\nflags\t\t: fpu sse2 avx\n"
ORIN = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp flagm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""
BIG_LITTLE = """\
CPU implementer : 0x41
CPU part : 0xd03

CPU implementer : 0x41
CPU part : 0xd08
"""


def test_cpuinfo_of_x86():
    cpu = machine.parse_cpuinfo(X86)
    assert cpu.model == "Intel(R) Xeon(R) Platinum 8488C"
    assert cpu.flags == ("amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni")
    assert machine.INT8_FLAGS & set(cpu.flags)
    assert not machine.INT8_FLAGS & set(machine.parse_cpuinfo(OLD_X86).flags)


def test_cpuinfo_of_a_jetson_orin_has_no_model_name():
    assert machine.parse_cpuinfo(ORIN * 8) == ("Cortex-A78AE", ("asimd", "asimddp"))


def test_cpuinfo_of_two_kinds_of_core_and_of_an_unknown_one():
    assert machine.parse_cpuinfo(BIG_LITTLE).model == "Cortex-A53+Cortex-A72"
    assert machine.parse_cpuinfo("CPU implementer : 0x61\nCPU part : 0x022\n").model == "ARM 0x61/0x022"
    assert machine.parse_cpuinfo("") == ("", ())


def test_meminfo_is_in_bytes():
    text = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n"
    assert machine.parse_meminfo(text) == {"MemTotal": 16777216, "MemAvailable": 8388608}


def test_os_release_quotes_are_dropped():
    assert machine.parse_os_release('NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n') == "Ubuntu 22.04.5 LTS"
    assert machine.parse_os_release("") == ""


def test_l4t_release_of_jetpack_6_and_7():
    assert machine.parse_l4t("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n") == "36.4.3"
    assert machine.parse_l4t("# R39 (release), REVISION: 2.0, GCID: 1\n# KERNEL_VARIANT: oot") == "39.2.0"
    assert machine.parse_l4t("") == ""


def test_board_name_ends_before_its_zero_byte(tmp_path):
    assert machine.board_name(tmp_path) == ""
    (tmp_path / "sys/firmware/devicetree/base").mkdir(parents=True)
    (tmp_path / "sys/firmware/devicetree/base/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert machine.board_name(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_control_groups_version_2_take_the_tightest_parent(tmp_path):
    files(
        tmp_path,
        {
            "user.slice/cpu.max": "150000 100000\n",
            "user.slice/memory.max": "1073741824\n",
            "user.slice/job/cpu.max": "max 100000\n",
            "user.slice/job/memory.max": "max\n",
        },
    )
    assert machine.control_group_limits("0::/user.slice/job\n", tmp_path) == (1.5, 1073741824)
    assert machine.control_group_limits("0::/\n", tmp_path) == (None, None)


def test_control_groups_of_a_container_are_at_the_mount_point(tmp_path):
    files(tmp_path, {"cpu.max": "50000 100000\n", "memory.max": "536870912\n"})
    assert machine.control_group_limits("0::/\n", tmp_path) == (0.5, 536870912)
    assert machine.control_group_limits("0::/../../system.slice/docker-1.scope\n", tmp_path) == (0.5, 536870912)


def test_control_groups_version_1_have_a_folder_per_controller(tmp_path):
    files(
        tmp_path,
        {
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "cpu/docker/1/cpu.cfs_quota_us": "200000\n",
            "cpu/docker/1/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/docker/1/memory.limit_in_bytes": "268435456\n",
        },
    )
    text = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n"
    assert machine.control_group_limits(text, tmp_path) == (2.0, 268435456)
    assert machine.control_group_limits("4:memory:/\n3:cpu,cpuacct:/\n", tmp_path) == (None, None)


def test_hyper_threads_share_a_core(tmp_path):
    files(tmp_path, {f"cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}\n" for n in range(4)})
    assert machine.physical_cores([0, 1, 2, 3], tmp_path) == 2
    assert machine.physical_cores([0, 2], tmp_path) == 1
    assert machine.physical_cores([0, 9], tmp_path) is None


@pytest.mark.parametrize(
    ("load", "cores", "threads"),
    [(0.0, 2, 2), (0.4, 2, 2), (0.6, 2, 1), (2.0, 2, 1), (30.0, 8, 1), (3.0, 8, 5), (0.0, 1, 1)],
)
def test_threads_fit_into_the_cores_that_are_free(load, cores, threads):
    assert machine.recommended_threads(load, cores) == threads


def test_openmp_variables_of_the_user_are_kept():
    assert machine.thread_environment({}, threads=2) == {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    assert machine.thread_environment({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "4"}, threads=2) == {}
    assert 1 <= int(machine.thread_environment({})["OMP_NUM_THREADS"]) <= machine.usable_cores()


def test_gpu_names_are_lines():
    assert machine.parse_gpu_names("NVIDIA H200\nNVIDIA H200\n\n") == ["NVIDIA H200", "NVIDIA H200"]


def tool(folder: Path, text: str) -> str:
    (folder / "tool").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "tool").chmod(0o755)
    return str(folder / "tool")


def test_a_tool_that_is_absent_fails_or_hangs_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "TOOL_SECONDS", 0.2)
    assert machine.run_text("no-such-tool-anywhere") == ""
    assert machine.run_text(tool(tmp_path, "echo No devices were found; exit 6")) == ""
    assert machine.run_text(tool(tmp_path, "exec sleep 30")) == ""
    assert machine.run_text(tool(tmp_path, 'echo "$1"'), "-q") == "-q\n"


def test_facts_of_this_machine_are_json_and_name_neither_host_nor_user():
    facts = machine.machine_facts()
    text = json.dumps(facts)
    assert facts["cpu"]
    assert 1 <= machine.usable_cores() <= facts["cores_logical"]
    assert len(facts["load_average"]) == 3
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    assert "host" not in "".join(facts)
    assert all(value != host for value in facts.values())
    assert "/home" not in text


def test_versions_hold_python_numpy_and_rctk_without_importing_anything_heavy():
    code = (
        "import sys, json; from rctk.machine import machine_facts, versions; machine_facts(); v = versions()\n"
        "print(json.dumps([v, [m for m in ('numpy', 'torch', 'onnx', 'onnxruntime') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, imported = json.loads(done.stdout)
    assert imported == []
    assert {"python", "rctk", "numpy"} <= set(found)
    assert found["python"] == sys.version.split()[0]
    assert "tensorrt" not in found or found["tensorrt"]
