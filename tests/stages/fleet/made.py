"""Detectors of random vectors, which need neither recordings nor Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ray_asd import build, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Threshold
from ray_asd.stages.detection import assembly, enroll
from ray_asd.stages.detection.healthy import Source
from ray_asd.stages.training.usage import SPECTRAL, features

MACHINES, CLIPS, DIM = ("fan", "pump"), 24, 6


def detector(root: Path, seed: int = 0) -> Output:
    """Of two machines."""
    vectors = np.random.default_rng(seed).standard_normal((len(MACHINES) * CLIPS, DIM), np.float32)
    rows = [
        {"machine_type": machine, "section": "00", "clip_id": f"{machine}/{number:02d}.wav", "domain": "source"}
        | {"content_hash": f"{seed} {number}", "twins": [], "role": "bank", "score": None}
        for machine in MACHINES
        for number in range(CLIPS)
    ]
    source = Source(pa.Table.from_pylist(rows, schema=tables.HEALTHY), lambda: iter([vectors]))

    def work(attempt: Attempt) -> Outcome:
        member = features(SPECTRAL)
        return assembly.made(attempt, assembly.Plan([member], [[source]], [member.provenance()], Threshold(), {}))

    return build.run(str(root), Key("enroll", "made", enroll.CODE_VERSION, {"seed": seed}, {}), work)
