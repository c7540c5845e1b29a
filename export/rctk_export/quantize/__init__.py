"""Where Q/DQ pairs belong in a float graph (one planner per target), and the writer that puts them there."""

from __future__ import annotations

from rctk_export.quantize.plan import Planner
from rctk_export.registry import Family

PLANNERS: Family[Planner] = Family(
    "target",
    {
        "cpu": "rctk_export.quantize.plan_cpu:CpuPlanner",
        "openvino": "rctk_export.quantize.plan_openvino:OpenVinoPlanner",
        "tensorrt": "rctk_export.quantize.plan_tensorrt:TensorrtPlanner",
        "cpu-mirror": "rctk_export.quantize.plan_mirror:MirrorPlanner",
    },
)
