"""Errors that a user can cause or mend. The command line prints their one line and exits with 2."""

from __future__ import annotations


class RctkError(Exception):
    """Something the user can fix; the message says what was expected, what was found and what to do next."""


class OptionError(RctkError, ValueError):
    """A setting has a value that cannot be used, or a name is not known."""


class ModelError(RctkError):
    """A model file cannot be read, does not fit its architecture, or cannot be captured."""


class DataError(RctkError):
    """A data set is missing, unreadable, or does not fit the model."""


class GraphError(RctkError):
    """An ONNX graph is malformed or has a form that rctk does not handle."""


class UnsupportedOperatorError(GraphError):
    """An ONNX operator has no implementation here; the message names operator and node."""


class QuantizationError(RctkError):
    """A tensor cannot be quantized as asked."""


class LintError(RctkError):
    """A Q/DQ graph breaks a rule of its target; the message names rule, node and remedy."""


class MismatchError(RctkError):
    """Two forms of one model disagree by more than is allowed."""


class BundleError(RctkError):
    """A bundle is missing, damaged, from another schema, or being written by another process."""


class EngineError(RctkError):
    """An engine refused to load or to run a model."""


class EngineUnavailableError(EngineError):
    """An engine is not installed; the message holds the ``pip install`` line."""


class AttackError(RctkError):
    """An attack cannot run on this model (no gradients, outputs that are no logits, ...)."""


class RecordError(RctkError):
    """A record file cannot be read or written."""
