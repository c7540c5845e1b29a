import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from rctk.records import Record
from rctk.report import render_html
from rctk.report.page import html_page
from rctk_kernels.errors import RecordError

VOID = {"meta", "img", "br"}
GLOBALS = """
import sys
import numpy as np
import rctk.report
assert not {"matplotlib", "seaborn", "pandas"} & set(sys.modules)
import matplotlib, matplotlib.pyplot
from rctk.records import Record
from rctk.report.page import html_page
before, state, backend = dict(matplotlib.rcParams), np.random.get_state()[1].tolist(), matplotlib.get_backend()
times = [1.0, 1.1, 1.2]
html_page([Record.of("bench", {"name": "a"}, {"batch": 1}, {"median_ms": 1.1, "times_ms": times})])
assert dict(matplotlib.rcParams) == before
assert np.random.get_state()[1].tolist() == state
assert matplotlib.get_backend() == backend
assert not matplotlib.pyplot.get_fignums()
"""


class Reader(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def pictures(page):
    found = [attrs["src"] for tag, attrs in read(page).tags if tag == "img"]
    return [base64.b64decode(src.removeprefix("data:image/svg+xml;base64,")) for src in found]


@pytest.fixture(scope="module")
def page(records):
    return html_page(records)


def test_the_page_holds_three_plots_and_every_table(page):
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Clean and robust accuracy",
        "Latency",
        "Accuracy against size and latency",
        "Float against deployed",
        "Attacks",
        "Latency, throughput and memory",
        "Exported files",
        "Training",
        "Machines and versions",
    ]
    assert [ET.fromstring(svg).tag for svg in pictures(page)] == ["{http://www.w3.org/2000/svg}svg"] * 3


def test_the_page_loads_nothing_from_elsewhere(page):
    assert "Content-Security-Policy" in page
    for _, attrs in read(page).tags:
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not re.search(r"@import|url\(", page)
    for svg in pictures(page):
        assert all(link.startswith(b"#") for link in re.findall(rb'xlink:href="([^"]*)"', svg))


def test_hostile_names_stay_text(hostile_records):
    page = html_page(hostile_records)
    reader = read(page)
    assert not {"script", "b", "iframe"} & {tag for tag, _ in reader.tags}
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert any("<script>" in text for text in reader.text)
    assert "\x1b" not in page
    for svg in pictures(page):
        assert ET.fromstring(svg).find(".//{http://www.w3.org/2000/svg}script") is None


def test_verdicts_stand_on_top_in_words(records):
    (record,) = [record for record in records if record.kind == "compare"]
    text = " ".join(read(html_page(records)).text)
    assert f"✓ {record.values['outcome']}" in text
    assert text.index("✓") < text.index("Clean and robust accuracy")


def test_a_single_record_and_none_make_a_page(records):
    (bench,) = [r for r in records if r.kind == "bench" and r.subject["role"] == "float"]
    assert len(pictures(html_page([bench]))) == 1
    assert len(pictures(html_page([Record.of("bench", {}, {}, {"median_ms": 0.0, "p99_ms": 0.0})]))) == 1
    assert pictures(html_page([])) == []


def test_two_hundred_records_make_a_page_that_says_what_its_plots_leave_out(many_records):
    page = html_page(many_records)
    assert "The newest 24 of 100 rows" in page
    assert "The newest 24 of 50 files" in page
    assert page.count("<tr>") == 7 + 50 + 75 + 50 + 75 + 25 + 2 - 1
    assert len(page) < 3_000_000


@pytest.mark.parametrize("kind", ["export", "train", "attack", "bench", "compare", "stress"])
@pytest.mark.parametrize("values", [{}, {"clean": 3, "median_ms": None, "robust": {"float_accuracy": 0.5}}])
def test_records_with_missing_values_make_a_page(kind, values):
    assert "rctk report" in html_page([Record.of(kind, {}, {}, values)])


def test_an_accuracy_without_its_interval_is_still_drawn():
    values = {"clean_accuracy": 0.5, "robust_accuracy": np.nan}
    assert len(pictures(html_page([Record.of("attack", {"name": "a"}, {}, values)]))) == 1


def test_the_same_records_give_the_same_page(records, page):
    assert html_page(records) == page


def test_matplotlib_loads_late_and_its_settings_and_global_randomness_stay():
    done = subprocess.run([sys.executable, "-c", GLOBALS], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_page_replaces_an_earlier_one_and_leaves_nothing_beside_it(tmp_path, records):
    path = tmp_path / "out" / "report.html"
    for _ in range(2):
        render_html(records[:1], path)
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == html_page(records[:1])


def test_an_unwritable_page_is_named(tmp_path, records):
    with pytest.raises(RecordError, match=r"cannot write .*: Is a directory"):
        render_html(records[:1], tmp_path)
    assert list(tmp_path.parent.glob("*.part")) == []
