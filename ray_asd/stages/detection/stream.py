"""Scoring: recordings to SCORES and UNSCORED shard by shard, through a worker's models and past the banks' actors."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.build import Attempt, File, Output
from ray_asd.config import Resources
from ray_asd.data.recordings import Unheard, unscored
from ray_asd.engine.cutting import Reader
from ray_asd.engine.receipts import Done
from ray_asd.stages.detection import detector
from ray_asd.stages.detection.bank import Compared, Comparer, Here
from ray_asd.stages.detection.bank_actors import Pool
from ray_asd.stages.detection.decide import Judge, groups_of
from ray_asd.stages.detection.detector import DetectorCard
from ray_asd.stages.detection.hearing import Heard, Model
from ray_asd.tables import Folder

_MOST_NAMED = 10  # machine types or sections that a reason lists


class Clips:
    """One shard of CLIPS to one file of SCORES, and one of UNSCORED where there are such."""

    def __init__(
        self, made: Output, card: DetectorCard, clips: Output, resources: Resources, judge: Judge, actors: Pool | None
    ) -> None:
        self.rows = Reader(clips)
        self.card, self.judge = card, judge
        self.banks: Comparer = actors or Here(made, card)
        self.models = [Model(used) for used in detector.members(made, card, resources)]

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        rows = self.rows(span).filter(pc.field("split") == "test")
        failed = self._unknown(rows)
        known = np.array([place for place in range(rows.num_rows) if place not in failed], np.int64)
        heard = [model(rows.take(pa.array(known))) for model in self.models] if len(known) else []
        for said in heard:
            failed = {int(known[place]): why for place, why in said.unheard.items()} | failed
        files: list[File] = []
        scored = [place for place in known if place not in failed]
        if scored:
            table, enrolled = self._scores(rows, np.array(scored), known, heard)
            files.append(attempt.put_table(f"{Folder.SCORES}/{name}.parquet", table))
        if failed:
            files.append(attempt.put_table(f"{Folder.UNSCORED}/{name}.parquet", unscored(rows, failed)))
        counts = Counter(f"unscored_{why.reason}" for why in failed.values())
        counts |= Counter(clips=len(scored), unscored=len(failed), audio_seconds=_seconds(rows))
        if scored:
            counts |= Counter(
                decided=len(table) - table["decision"].null_count,
                alarms=pc.sum(table["decision"]).as_py() or 0,
                enrolled=enrolled,
            )
        return Done(files, dict(counts))

    def _unknown(self, rows: pa.Table) -> dict[int, Unheard]:
        """Clips that the detector cannot compare with anything, by position."""
        found = {}
        for place, (machine_type, section) in enumerate(groups_of(rows)):
            number = self.card.number(machine_type, section)
            if number < 0:
                found[place] = Unheard("no_bank", self._not_enrolled(machine_type, section))
            elif self.card.groups[number].why:
                found[place] = Unheard("learning", f"{machine_type} section {section}: {self.card.groups[number].why}")
        return found

    def _not_enrolled(self, machine_type: str, section: str) -> str:
        own = [group.section for group in self.card.groups if group.machine_type == machine_type]
        known = [f"section {name}" for name in own] or sorted({group.machine_type for group in self.card.groups})
        more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
        allowed = ", ".join(known[:_MOST_NAMED]) + more
        return f"{machine_type} section {section} was not enrolled; allowed: {allowed}"

    def _scores(
        self, rows: pa.Table, scored: np.ndarray, known: np.ndarray, heard: list[Heard]
    ) -> tuple[pa.Table, int]:
        """SCORES of the rows at the places ``scored``, which all models have heard; how many are in the bank."""
        chosen = rows.take(pa.array(scored))
        groups = np.array([self.card.number(*group) for group in groups_of(chosen)])
        hashes = chosen["content_hash"].to_pylist()
        found: list[np.ndarray] = []
        nearest: Compared | None = None
        for number, said in enumerate(heard):
            values = said.values[np.searchsorted(known[said.positions], scored)]
            if not self.card.members[number].has_bank:
                found.append(values[:, 0])
                continue
            compared = self.banks.compare(values, number, groups, hashes)
            nearest = nearest or compared
            found.append(compared.scores)
        return self.judge(chosen, found, nearest), int(nearest.left_out.sum()) if nearest else 0


def _seconds(rows: pa.Table) -> int:
    """How long the recordings of CLIPS are together."""
    found = pc.sum(pc.divide(pc.cast(rows["num_samples"], pa.float64()), rows["sample_rate"])).as_py()
    return round(found or 0)
