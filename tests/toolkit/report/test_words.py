import pytest

from rctk.report import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (["a", 1], "a, 1"),
        ({"eps": 0.1, "steps": 3}, "eps 0.1, steps 3"),
        ("a\nb\tc\x1b[0m\x00", "a b c [0m "),
        ("abc\u202egnp", "abc gnp"),
        ("bad \udce9 \ufffe", "bad    "),
        ("日本語", "日本語"),
    ],
)
def test_text_is_one_printable_line(value, shown):
    assert words.text(value) == shown


@pytest.mark.parametrize("length", [1, 59, 60, 61, 1000])
def test_text_keeps_both_ends_and_its_limit(length):
    shown = words.text("a" * (length - 1) + "z")
    assert len(shown) == min(length, 60)
    assert shown.endswith("z")


@pytest.mark.parametrize(
    "show", [words.percent, words.points, words.p_value, words.milliseconds, words.size, words.number]
)
@pytest.mark.parametrize("value", [None, "text", True, [1], {}])
def test_what_is_no_number_is_a_dash(show, value):
    assert show(value) == "-"


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024**2, "1.0 MiB"), (5 * 1024**5, "5120.0 TiB")],
)
def test_sizes_are_powers_of_1024(bytes_, shown):
    assert words.size(bytes_) == shown


@pytest.mark.parametrize(
    ("norm", "eps", "shown"),
    [
        ("linf", 8 / 255, "linf 8/255"),
        ("linf", 0.3, "linf 0.3"),
        ("l2", 1.0, "l2 1"),
        ("linf", 1 / 510, "linf 0.00196078"),
    ],
)
def test_a_budget_reads_as_users_write_it(norm, eps, shown):
    assert words.budget(norm, eps) == shown


def test_a_difference_without_interval_stands_alone():
    assert words.points_between(-0.01, None, None) == "-1.0"
    assert words.percent_between(0.5, None, 0.6) == "50.0 %"


def test_markdown_keeps_table_and_page_whole():
    assert words.markdown("a|b\\|c <b>&amp; *x* _y_ [l](u) `c`") == (
        r"a\|b\\\|c &lt;b&gt;&amp;amp; \*x\* \_y\_ \[l\](u) \`c\`"
    )
