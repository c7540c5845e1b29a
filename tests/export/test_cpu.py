import platform

import pytest

from rctk_export import cpu


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni amx\n", True),
        ("flags : fpu avx_vnni\n", True),
        ("flags : fpu avx2 avx512f\nbugs : avx512_vnni\n", False),
        ("flags : avx512_vnni2\n", False),
        ("", False),
    ],
)
def test_vnni_is_read_from_the_flags_line_alone(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu.has_vnni(path) is expected


@pytest.mark.parametrize(("text", "expected"), [("flags : amx_tile amx_int8\n", True), ("flags : amx_bf16\n", False)])
def test_tiles_of_int8_are_read_likewise(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu.has_amx_int8(path) is expected
    assert cpu.has_amx_int8(tmp_path / "absent") is False


def test_where_the_kernel_does_not_say_vnni_is_not_assumed(tmp_path):
    assert cpu.has_vnni(tmp_path / "absent") is False


@pytest.mark.parametrize(
    ("machine", "vnni", "expected"),
    [("x86_64", False, True), ("x86_64", True, False), ("AMD64", False, True), ("aarch64", False, False)],
)
def test_only_x86_without_vnni_saturates(monkeypatch, machine, vnni, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "has_vnni", lambda: vnni)
    assert cpu.saturates_u8s8() is expected


@pytest.mark.parametrize(
    ("version", "amx", "expected"),
    [
        ("1.23.2", True, True),
        ("1.24.4", True, True),
        ("1.25.0", True, False),
        ("1.31.1", True, False),
        ("2.0.0", True, False),
        ("1.23.2", False, False),
    ],
)
def test_versions_that_spoil_int8_products_on_amx_are_known(monkeypatch, version, amx, expected):
    monkeypatch.setattr(cpu, "has_amx_int8", lambda: amx)
    assert cpu.spoils_int8(version) is expected
