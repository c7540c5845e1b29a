"""Lines of tegrastats and nvidia-smi, written from the forms that each JetPack has."""

from __future__ import annotations

import pytest

from rctk.measure.nvidia_smi import MIB, parse_compute_apps, parse_gpus
from rctk.measure.tegrastats import Tegra, Unit, parse_line

JETPACK4 = (
    "RAM 1652/3964MB (lfb 242x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [1%@345,off,7%@345,0%@345] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 12%@76 APE 25 PLL@34C CPU@35.5C PMIC@100C GPU@34C AO@41.5C thermal@34.75C "
    "POM_5V_IN 1022/1100 POM_5V_GPU 40/41 POM_5V_CPU 122/130"
)
JETPACK5 = (
    "03-14-2023 09:26:00 RAM 4011/15388MB (lfb 8x4MB) SWAP 0/7694MB (cached 0MB) CPU [12%@1190,0%@1190,off,off] "
    "EMC_FREQ 2%@2133 GR3D_FREQ 35%@[305] CV0@-256C CPU@48.5C SOC2@47.1C GPU@46.9C "
    "VDD_IN 4936mW/4936mW VDD_CPU_GPU_CV 987mW/987mW VDD_SOC 1478mW/1478mW"
)
JETPACK6 = (
    "RAM 4011/8138MB (lfb 8x4MB) SWAP 0/4068MB (cached 0MB) CPU [12%@1190,8%@729] EMC_FREQ 0% GR3D_FREQ 35% "
    "CPU@52C GPU@49C VDD_GPU_SOC 1234mW VDD_CPU_CV 567mW"
)
JETPACK72 = (
    "11-05-2025 10:20:31 RAM 7000/62841MB (lfb 2x4MB) CPU [3%@729,0%@729,off] EMC_FREQ 1%@3199 "
    "GR3D_FREQ 12%@[1300,1300] NVDLA0 off cpu@50.5C/50.5C gpu@47.625C/47.625C "
    "VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 800mW/801mW/802mW VIN_SYS_5V0 4500mW/4500mW/4500mW"
)
THOR = (
    "RAM 9000/125772MB (lfb 12x4MB) CPU [1%@972,1%@972] EMC_FREQ 0%@4266 GR3D_FREQ @[314,314,314] cpu@42.3C gpu@41C "
    "VDD_GPU 1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)


def test_jetpack_4_prints_power_without_a_unit():
    line = parse_line(JETPACK4)
    assert line.milliwatts == {"POM_5V_IN": 1022, "POM_5V_GPU": 40, "POM_5V_CPU": 122}
    assert line.ram_mib == (1652, 3964)
    assert line.cores == (Unit(0.01, (345,)), None, Unit(0.07, (345,)), Unit(0.0, (345,)))
    assert line.gpu == Unit(0.12, (76,))
    assert line.celsius["AO"] == 41.5


def test_jetpack_5_has_a_date_and_a_zone_that_is_off():
    line = parse_line(JETPACK5)
    assert line.milliwatts == {"VDD_IN": 4936, "VDD_CPU_GPU_CV": 987, "VDD_SOC": 1478}
    assert line.gpu == Unit(0.35, (305,))
    assert line.memory == Unit(0.02, (2133,))
    assert "CV0" not in line.celsius
    assert line.celsius["CPU"] == 48.5
    assert line.largest_block_mib == 4


def test_jetpack_6_may_print_no_clocks():
    line = parse_line(JETPACK6)
    assert (line.gpu, line.memory) == (Unit(0.35), Unit(0.0))
    assert line.milliwatts == {"VDD_GPU_SOC": 1234, "VDD_CPU_CV": 567}


def test_jetpack_7_doubles_temperatures_and_triples_power():
    line = parse_line(JETPACK72)
    assert line.celsius == {"cpu": 50.5, "gpu": 47.625}
    assert line.gpu == Unit(0.12, (1300, 1300))
    assert line.milliwatts == {"VDD_GPU_SOC": 5139, "VDD_CPU_CV": 800, "VIN_SYS_5V0": 4500}


def test_thor_prints_no_load_of_the_gpu():
    line = parse_line(THOR)
    assert line.gpu == Unit(None, (314, 314, 314))
    assert line.milliwatts["VIN"] == 19780
    assert line.milliwatts["VIN_SYS_5V0"] == 5635


@pytest.mark.parametrize("line", ["", "tegrastats: not found", "RAM /MB CPU [ EMC_FREQ GR3D_FREQ x VDD_IN mW"])
def test_a_broken_line_holds_nothing(line):
    assert parse_line(line) == Tegra(None, None, (), Unit(), Unit(), {}, {})


def test_a_line_that_was_cut_keeps_what_is_whole():
    line = parse_line(JETPACK5[: JETPACK5.index("987mW/987mW") + 3])  # in the middle of a rail
    assert line.milliwatts == {"VDD_IN": 4936}
    assert line.ram_mib == (4011, 15388)


DESKTOP = "NVIDIA GeForce RTX 4090, 550.54.14, 2520, 3105, 61, 318.44, 1024"
ORIN = "Orin (nvgpu), 540.4.0, [N/A], [N/A], [N/A], [N/A], [N/A]"
THOR_SMI = "NVIDIA Thor, 580.00, 1575, 1575, 42, [Not Supported], [Not Supported]"


def test_a_desktop_card_tells_all():
    (card,) = parse_gpus(DESKTOP)
    assert card == ("NVIDIA GeForce RTX 4090", "550.54.14", 2520, 3105, 61, 318.44, 1024 * MIB)


def test_jetsons_tell_what_their_driver_knows():
    orin, thor = parse_gpus(f"{ORIN}\n{THOR_SMI}\n")
    assert orin[2:] == (None,) * 5
    assert (thor.mhz, thor.watts, thor.memory_used_bytes) == (1575, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system",
        "a, b\n",
    ],
)
def test_an_error_is_no_gpu(text):
    assert parse_gpus(text) == []


def test_memory_of_processes_is_added_up_over_gpus():
    text = "10, 100\n10, 50\n11, [N/A]\nbroken\n12, 1, 2\nx, 5\n"
    assert parse_compute_apps(text) == {10: 150 * MIB}
