"""What every test keeps: the tracer that coverage counts with."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def tracer_kept():
    """Fail the test that ends or replaces it, since all later files of its worker would seem not to be run."""
    tracer = sys.gettrace()
    yield
    if sys.gettrace() is not tracer:
        sys.settrace(tracer)
        pytest.fail("this test ended the tracer of the run; give it back with sys.settrace(tracer)")
