from __future__ import annotations

import pytest

from rctk.study.document import read_document
from rctk_kernels.errors import OptionError


@pytest.fixture
def document(tmp_path):
    def read(text):
        path = tmp_path / "s.yaml"
        path.write_text(text)
        return read_document(path)

    return read


def test_scalars_are_the_text_that_stands_there(document):
    found = document("on: [off, 0x10, 1e-3, 8/255, 2024-01-01]\nbatch_size: 08\n").mapping()
    assert found["on"].texts() == ["off", "0x10", "1e-3", "8/255", "2024-01-01"]
    assert found["batch-size"].text() == "08"


def test_steps_are_read_as_in_a_recipe(document):
    steps = document("steps:\n  - quant.mixed: {drop: 0.1, on: true}\n").mapping()["steps"].items()
    assert steps[0].values() == {"quant.mixed": {"drop": 0.1, True: True}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  - x\n  - [y]\n", r"line 3, a\[1\]: expected one value, found a list"),
        ("a: [x, '']", r"line 1, a\[1\]: expected one value, found nothing"),
        ("a: []", "line 1, a: the list is empty"),
        ("a: &a [*a]", r"line 1, a\[0\]: expected one value, found a list"),
    ],
)
def test_an_error_names_line_and_key(document, text, said):
    with pytest.raises(OptionError, match=said):
        document(text).mapping()["a"].texts()


def test_a_key_may_stand_once(document):
    with pytest.raises(OptionError, match="line 2, batch_size: the key batch-size stands twice"):
        document("batch-size: 1\nbatch_size: 2").mapping()
