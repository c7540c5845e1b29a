"""How long the int8 engine of a module takes: exported, opened and timed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from rctk.data.split import Split
from rctk.exporting.export import ExportSettings, quantize
from rctk.measure.bench import Contender, bench, busy
from rctk.measure.settings import BenchSettings
from rctk.progress import Silent
from rctk_export.capture import capture
from rctk_export.engine import Source
from rctk_export.input_spec import InputSpec
from rctk_export.onnx_files import serialize

TARGET, ENGINE = "cpu", "onnxruntime"
CALIBRATION = 32
"""Images that choose scales; the time of an engine does not depend on them."""


class LatencyJudge:
    """Times int8 files of candidates against that of a dense module, in turns on this machine.

    Args:
        dense: What is 1.
        spec: Input of all modules.
        calibration: Images in [0, 1].
        settings: How to time; one image and one thread by default.
    """

    def __init__(
        self, dense: nn.Module, spec: InputSpec, calibration: Split, settings: BenchSettings | None = None
    ) -> None:
        self._spec = spec
        self._calibration = calibration.sample(CALIBRATION, 0)
        self._settings = settings or BenchSettings(calls=300, memory=False)
        self._dense = self._int8(dense)

    def share(self, module: nn.Module) -> float:
        """Return the time of the int8 engine of ``module`` as a share of the dense engine's.

        The ratio of median wall times; of least CPU times where other work disturbed the clock.
        """
        with tempfile.TemporaryDirectory(prefix="rctk-") as folder:
            contenders = [
                Contender(engine=ENGINE, source=self._source(Path(folder) / f"{name}.onnx", data))
                for name, data in (("dense", self._dense), ("pruned", self._int8(module)))
            ]
            values = bench(contenders, None, self._settings)[1]
        return 1 / float(values["cpu_speedup"] if busy(values) else values["speedup"])

    def _int8(self, module: nn.Module) -> bytes:
        graph = capture(module.cpu().eval(), self._spec)
        (made,) = quantize(graph, self._calibration, ExportSettings(targets=(TARGET,)), Silent())
        return serialize(made.model)

    def _source(self, path: Path, data: bytes) -> Source:
        path.write_bytes(data)
        return Source(path=path, input=self._spec, role="int8", target=TARGET)
