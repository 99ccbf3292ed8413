"""The paper's own figures, and when they may stand beside ours.

"Exploring Large Scale Pre-Trained Models for Robust Machine Anomalous Sound Detection", ICASSP 2024, Table 1: harmonic
means in percent on the development set of DCASE 2023 Task 2.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pyarrow.compute as pc

from ray_asd.build import Output
from ray_asd.report.rows import Parts
from ray_asd.tables import Folder

CITATION = (
    '"Exploring Large Scale Pre-Trained Models for Robust Machine Anomalous Sound Detection", ICASSP 2024, Table 1'
)
DATASET = "dcase2023-dev"
"""What CLIPS of that set are called: ``ray-asd ingest ... --dataset dcase2023-dev``."""

MACHINES = ("bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain", "valve")
_CLIPS_PER_MACHINE = {"train": 1000, "test": 200}


@dataclass(frozen=True)
class Published:
    """One row of the paper's table: figures as fractions."""

    system: str
    switches: tuple[bool, bool, bool] | None  # (WS, SA, TFP); None: a baseline
    score: float
    machines: dict[str, float]

    def is_of(self, parts: Parts) -> bool:
        """Whether a system of these parts is the one that the row is about."""
        if self.switches is None:
            return parts.method == self.system.lower()
        return parts.method == "backbone" and (parts.family, parts.switches) == (self.system, self.switches)


@cache
def table() -> tuple[Published, ...]:
    """All rows, in the paper's order."""
    text = (resources.files("ray_asd") / "paper" / "table1.csv").read_text()
    return tuple(_published(row) for row in csv.DictReader(text.splitlines()))


def _published(row: dict[str, str]) -> Published:
    names = ("weighted_sum", "status_augmentation", "transformer_pooling")
    ws, sa, tfp = (row[name] == "1" for name in names)
    switches = (ws, sa, tfp) if row[names[0]] else None
    machines = {machine: float(row[machine]) / 100 for machine in MACHINES}
    return Published(row["system"], switches, float(row["all_hmean"]) / 100, machines)


def is_its_data(clips: Output) -> bool:
    """Whether these CLIPS are the recordings of the paper: called so by whoever ingested them, and of that shape."""
    counts = clips.marker.counts
    wanted = {split: count * len(MACHINES) for split, count in _CLIPS_PER_MACHINE.items()}
    if any(counts.get(split, 0) < count for split, count in wanted.items()):
        return False
    rows = clips.table(Folder.CLIPS).select(["dataset", "machine_type", "split", "duplicate_of"])
    rows = rows.filter(pc.is_null(rows["duplicate_of"]))  # archives may lie beside what was unpacked from them
    if pc.unique(rows["dataset"]).to_pylist() != [DATASET]:
        return False
    cells = rows.group_by(["machine_type", "split"]).aggregate([([], "count_all")]).to_pylist()
    found = {(cell["machine_type"], cell["split"]): cell["count_all"] for cell in cells}
    return found == {(machine, split): count for machine in MACHINES for split, count in _CLIPS_PER_MACHINE.items()}
