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
