"""Plants whose machines say something every night: scores as a detector gives them, without one."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.fleet_tables import NIGHTS

START = date(2026, 1, 1)
COLUMNS = ["clip_id", "machine_type", "section", "domain", "machine_id", "model_digest", "score"]
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])


class Plant:
    """Machines that differ in level and scale of their scores; half of a score's variance is its night's."""

    def __init__(self, machines=200, clips=8, seed=0):
        self.rng = np.random.default_rng(seed)
        self.level, self.scale = self.rng.normal(0, 3, machines), np.exp(self.rng.normal(size=machines))
        self.machines, self.clips = machines, clips
        self.detector = "d"
        self.names = np.array([f"{number:03d}" for number in range(machines)])

    def drawn(self, days, worse=0.0, faulty=0):
        """Scores [machines, days, clips]; those of the first ``faulty`` machines are so many deviations higher."""
        shape = (self.machines, days, self.clips)
        values = np.sqrt(0.5) * (self.rng.normal(size=(*shape[:2], 1)) + self.rng.normal(size=shape))
        values[:faulty] += worse
        return self.level[:, None, None] + self.scale[:, None, None] * values

    def past(self, days):
        values = self.drawn(days).reshape(-1, self.clips)
        dates = [START + timedelta(days=day) for day in range(days)] * self.machines
        columns = self._columns(days) | {"night": pa.array(dates, pa.date32()), "clips": [self.clips] * len(values)}
        columns |= {"mean": values.mean(axis=1), "deviations": values.var(axis=1) * self.clips}
        columns["nearest"] = pa.nulls(len(values))
        return pa.table([columns[name] for name in NIGHTS.names], names=NIGHTS.names).cast(NIGHTS)

    def tonight(self, **worse):
        columns = self._columns(self.clips) | {"score": self.drawn(1, **worse).ravel()}
        columns["clip_id"] = [""] * self.machines * self.clips
        return pa.table([columns[name] for name in COLUMNS], names=COLUMNS).cast(SCHEMA)

    def calibration(self, days):
        values = self.drawn(days).reshape(self.machines, -1)
        columns = self._columns(values.shape[1]) | {"score": values.ravel(), "source": ["calibration"] * values.size}
        columns["clip_id"] = [f"{number:05d}" for number in range(values.shape[1])] * self.machines
        columns["content_hash"] = columns["clip_id"]
        names = tables.CALIBRATION.names
        return pa.table([columns[name] for name in names], names=names).cast(tables.CALIBRATION)

    def _columns(self, repeats):
        count = self.machines * repeats
        same = {"machine_type": ["fan"] * count, "domain": ["source"] * count, "model_digest": [self.detector] * count}
        return same | {"machine_id": pa.nulls(count, pa.string()), "section": np.repeat(self.names, repeats)}
