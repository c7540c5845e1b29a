"""Rules that a Q/DQ graph must keep before a device sees it, by target; each names the node and the remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from rctk_export.lint.cpu import RULES as CPU_RULES
from rctk_export.lint.openvino import RULES as OPENVINO_RULES
from rctk_export.lint.rule import Finding, Rule
from rctk_export.lint.tensorrt import MIRROR_RULES
from rctk_export.lint.tensorrt import RULES as TENSORRT_RULES
from rctk_export.lint.view import View
from rctk_export.onnx_files import uses_external_data
from rctk_export.registry import unknown
from rctk_kernels.errors import LintError

__all__ = ["TARGETS", "Finding", "Rule", "lint", "require_clean"]

TARGETS: Mapping[str, Sequence[Rule]] = {
    "tensorrt": TENSORRT_RULES,
    "cpu-mirror": MIRROR_RULES,
    "cpu": CPU_RULES,
    "openvino": OPENVINO_RULES,
}

EXTERNAL_DATA = Finding(
    rule="external-data",
    severity="error",
    node="initializers",
    message="weights lie in another file, so nothing else was checked",
    remedy="save the model as one file",
)


def lint(model: onnx.ModelProto, target: str) -> list[Finding]:
    """Return what keeps ``model`` from being a good file for ``target``, errors first; empty for a clean file.

    Args:
        model: A Q/DQ graph with its weights in memory; it is not changed.
        target: ``tensorrt``, ``cpu-mirror``, ``cpu`` or ``openvino``.
    """
    if target not in TARGETS:
        raise unknown("target", target, sorted(TARGETS))
    if uses_external_data(model):
        return [EXTERNAL_DATA]
    view = View(model)
    findings = [
        Finding(rule=rule.id, severity=rule.severity, node=node, message=message, remedy=rule.remedy)
        for rule in TARGETS[target]
        for node, message in rule.check(view)
    ]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def require_clean(model: onnx.ModelProto, target: str, kept_float: Collection[str] = ()) -> list[Finding]:
    """Return the warnings of ``model``; :class:`LintError` with the first error where there is one.

    Args:
        model: Q/DQ graph.
        target: See :func:`lint`.
        kept_float: Layers that stay float on purpose; one that reads a dequantized tensor is then no error.
    """
    wanted = {("half-quantized", name) for name in kept_float}
    findings = [finding for finding in lint(model, target) if (finding.rule, finding.node) not in wanted]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        raise LintError(f"{target}: {errors[0]}{more}")
    return findings
