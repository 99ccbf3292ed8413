"""The scored clips of a run by machine type and section, and the verdict on each: does it alarm as healthy ones would?

N: clips of a section.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_asd import tables
from ray_asd.report.run import Run
from ray_asd.scoring import verdicts
from ray_asd.scoring.scores import MIN_CLIPS
from ray_asd.tables import Folder

WRONG, HEALTHY, UNJUDGED, UNKNOWN = "sounds wrong", "as expected", "not judged", "no threshold"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """What THRESHOLDS say of a threshold, by their columns; None where they do not."""

    source: str = "not recorded"
    false_positive_rate: float | None = None
    num_clips: int = 0
    num_above: int | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    false_alarms_source: float | None = None
    false_alarms_target: float | None = None

    @classmethod
    def of(cls, fit: Mapping[str, object]) -> "Limit":
        """That of a row of THRESHOLDS, which may lack columns."""
        return cls(**{field.name: fit[field.name] for field in fields(cls) if field.name in fit})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Group:
    """The scored clips of one machine type and section: arrays of N values, their alarms and their threshold.

    ``label`` and ``domain`` hold None where they are not known; ``stands_out`` says whether the alarms do among those
    of all groups.
    """

    machine_type: str
    section: str
    score: Floats
    label: NDArray[np.object_]
    domain: NDArray[np.object_]
    alarms: int
    threshold: float | None
    limit: Limit
    stands_out: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.machine_type} {self.section}"

    @property
    def above(self) -> int | None:
        """Calibration clips above the threshold, where these are known and enough for a verdict."""
        return None if self.threshold is None or self.limit.num_clips < MIN_CLIPS else self.limit.num_above

    @property
    def expected(self) -> float | None:
        """Alarms of a healthy machine: the mean of the beta-binomial of which ``chance`` is the tail."""
        return None if self.above is None else len(self.score) * (self.above + 1) / (self.limit.num_clips + 1)

    @property
    def chance(self) -> float | None:
        """That so many of N clips alarm if they are like the calibration clips (``scoring.verdicts.chance``)."""
        if self.above is None:
            return None
        calibration = self.limit.num_clips
        return verdicts.chance(self.alarms, len(self.score), calibration, calibration - self.above)

    @property
    def verdict(self) -> str:
        """What the alarms say."""
        if self.threshold is None:
            return UNKNOWN
        if self.above is None:
            return UNJUDGED
        return WRONG if self.stands_out else HEALTHY

    @property
    def urgency(self) -> tuple[int, float]:
        """Sorts those that sound wrong first, then by the share of alarms."""
        return -int(self.verdict == WRONG), -self.alarms / max(len(self.score), 1)


def groups_of(run: Run) -> list[Group]:
    """The sections of a run, most urgent first."""
    fits = run.scores.table(Folder.THRESHOLDS, tables.THRESHOLDS).to_pylist() if run.scores else []
    by_key = {(fit["machine_type"], fit["section"]): fit for fit in fits}
    found = [_group(machine, name, own, by_key.get((machine, name), {})) for machine, name, own in run.sections()]
    return sorted(judged(found), key=lambda group: (*group.urgency, group.name.lower()))


def judged(found: Sequence[Group]) -> list[Group]:
    """The same groups, each knowing whether it stands out among all of them."""
    standing_out = verdicts.discoveries([group.chance for group in found])
    return [replace(group, stands_out=out) for group, out in zip(found, standing_out, strict=True)]


def _group(machine: str, section: str, own: pa.Table, fit: Mapping[str, object]) -> Group:
    return Group(
        machine,
        section,
        own["score"].to_numpy(),
        own["label"].to_numpy(zero_copy_only=False),
        own["domain"].to_numpy(zero_copy_only=False),
        int(pc.sum(own["decision"]).as_py() or 0),
        own["threshold"][0].as_py(),
        Limit.of(fit),
    )
