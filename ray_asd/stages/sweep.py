"""The sweep: all cells of a grid on the same clips, as one graph of stages in which shared work happens once."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ray_asd.build import Output
from ray_asd.build.steps import Step
from ray_asd.engine.graph import Engine, Node
from ray_asd.engine.session import session
from ray_asd.errors import UserError
from ray_asd.grid import Cell
from ray_asd.stages.comparison import baselines, compare, evaluate
from ray_asd.stages.comparison.compare import Scored
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.training import systems, usage


@dataclass(frozen=True)
class Row:
    """A cell, and the URIs of the stages it takes, inputs first; or why it could not be planned."""

    cell: Cell
    uris: list[str]
    error: str | None = None


class Sweep:
    """Cells planned below one root on one CLIPS; ``run`` builds what is missing.

    A cell that cannot be planned, for want of its weights, say, is a failed cell and holds up no other.

    Raises:
        UserError: CLIPS hold nothing to train on or to score, or no cell can be planned.
    """

    def __init__(self, name: str, cells: Sequence[Cell], clips: Output, root: str) -> None:
        self.name, self.clips = name, clips
        self.engine = Engine(root)
        for split in ("train", "test"):
            if not clips.marker.counts.get(split):
                raise UserError(f"{clips.uri} holds no {split} clips; a sweep needs both train and test clips")
        self.rows = [self._planned(cell) for cell in cells]
        if all(row.error for row in self.rows):
            raise UserError(f"none of {len(self.rows)} cells can be planned, the first one: {self.rows[0].error}")
        self._begun, self._there = 0.0, 0

    def _planned(self, cell: Cell) -> Row:
        try:
            return Row(cell, self.engine.add(self._metrics(cell)))
        except UserError as error:
            return Row(cell, [], str(error))

    def _metrics(self, cell: Cell) -> Step:
        recipe, clips, progress = cell.recipe, self.clips, self.engine.progress
        used = usage.planned(systems.system(recipe, clips, progress), recipe, clips)
        scores = score.step(enroll.step([used], clips, progress), clips, recipe.resources, progress)
        beside = baselines.of_recipe(recipe, clips, progress)
        return evaluate.planned(used.name, [scores], beside, clips.marker.counts["test"], cell.variant)

    def at_once(self) -> dict[str, int]:
        """Per stage, how many of those to be done the cluster runs at the same time.

        Raises:
            UserError: the cluster could never hold one of them.
        """
        return self.engine.at_once()

    @property
    def shared(self) -> Counter[str]:
        """Per stage, by URI, how many cells need it."""
        return Counter(uri for row in self.rows for uri in row.uris)

    def run(self, show: Callable[[], None]) -> None:
        """Build all that is missing; ``show`` is called every now and then.

        Raises:
            UserError: the cluster could never hold a stage.
            StageError: SIGTERM stopped the run.
        """
        self._begun = time.monotonic()
        self._there = self.stages_done[0]
        self.engine.run(show)

    def error(self, row: Row) -> str | None:
        """Why a cell failed, where it did."""
        return row.error or self._nodes(row)[-1].error

    @property
    def stages_done(self) -> tuple[int, int, float | None]:
        """How many stages are done, of how many, and the seconds that the others take at the pace so far."""
        total = len(self.engine.nodes)
        done = sum(node.state == "done" for node in self.engine.nodes.values())
        made = done - self._there
        return done, total, (time.monotonic() - self._begun) / made * (total - done) if made > 0 else None

    def _nodes(self, row: Row) -> list[Node]:
        return [self.engine.nodes[uri] for uri in row.uris]

    def present(self, row: Row) -> Node | None:
        """What a cell is at: a stage that runs for it, else the first that has not been done; None at its end."""
        left = [node for node in self._nodes(row) if node.state != "done"]
        return next((node for node in left if node.state == "running"), left[0] if left else None)

    @property
    def metrics(self) -> list[Output]:
        """METRICS of the cells that were finished."""
        ends = [self._nodes(row)[-1].output for row in self.rows if row.uris]
        return [output for output in ends if output]

    @property
    def failed(self) -> list[tuple[Row, str]]:
        """The cells that were not, each with its error."""
        return [(row, error) for row in self.rows if (error := self.error(row))]

    @property
    def retryable(self) -> bool:
        """Whether the environment broke off every cell that failed."""
        return all(row.error is None and self._nodes(row)[-1].retryable for row, _ in self.failed)

    @property
    def counts(self) -> dict[str, int]:
        """Cells and stages, and how many of them were made now or could not be."""
        nodes = self.engine.nodes.values()
        made = sum(node.output is not None and not node.output.reused for node in nodes)
        return {"cells": len(self.rows), "failed": len(self.failed), "stages": len(nodes), "made": made}

    @property
    def reused(self) -> bool:
        """Whether nothing had to be done."""
        return all(node.output is None or node.output.reused for node in self.engine.nodes.values())

    def compared(self) -> Output | None:
        """CELLS and PAIRS of the finished cells and the baseline; None where there are no two of them."""
        found: dict[tuple[str, int | None], Scored] = {}
        for output in self.metrics:
            for system, scores in evaluate.systems(output):
                key = (system, scores.marker.summary["seed"])
                found[key] = Scored(*key, scores)
        if len(found) < 2:
            return None
        with session(self.engine.root) as bring:
            return bring(compare.step(self.name, list(found.values())))
