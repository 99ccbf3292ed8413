"""The pages about runs, made where there is room for the tables behind them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ray_asd import report, store
from ray_asd.build import Output
from ray_asd.cli.console import Progress
from ray_asd.config import Worker
from ray_asd.engine import where
from ray_asd.engine.progress import Progress as Told

_GB, _GB_PER_CLIP = 1.0, 1e-6  # of memory: figures and sounds of a page, and what is read of SCORES


@dataclass(frozen=True)
class Pages:
    """What a report is on, and ``out``, where it is written."""

    metrics: Sequence[Output]
    out: str
    scores: Sequence[Output] = ()
    comparison: Output | None = None
    failures: Sequence[report.Failure] = ()
    options: report.Options = field(default_factory=report.Options)

    def __call__(self, progress: Told) -> report.Written:
        pages = report.pages(report.runs(self.metrics, self.scores), self.out, self.options, progress)
        return report.write(self.metrics, self.comparison, self.failures, self.out, pages)

    def publish(self, root: str) -> report.Written:
        """Write them: by a task of the cluster where there is one, if its nodes see ``out`` as they do ``root``.

        Raises:
            UserError: there is nothing to report on.
        """
        if not (store.is_remote(self.out) or f"{self.out}/".startswith(f"{root}/")):
            return self(Progress())
        clips = max((output.marker.counts.get("clips", 0) for output in (*self.metrics, *self.scores)), default=0)
        return where.done("report", Worker(memory_gb=round(_GB + _GB_PER_CLIP * clips, 3)), self, Progress())
