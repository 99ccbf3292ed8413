"""What false alarms teach: the recordings of their nights as CLIPS, for ``enroll --detector D --add CLIPS``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.data.ingested import CONTENT, clip_counts
from ray_asd.errors import UserError
from ray_asd.fleet_tables import MACHINE
from ray_asd.scoring.alerts import Alert, Machine
from ray_asd.stages.fleet import manifests
from ray_asd.tables import Folder

STAGE = "feedback"
CODE_VERSION = 1
_HEALTHY = {"split": "train", "label": "normal"}


def step(fleet: str, alerts: Sequence[Alert]) -> Step:
    """CLIPS of the machines and nights of false ``alerts``, each recording once.

    Raises:
        UserError: an alert is not known to be false, there are none, or no night of theirs is there any more.
    """
    for alert in alerts:
        if alert.verdict != "false":
            state = f"resolved ({alert.verdict})" if alert.verdict else alert.state
            raise UserError(f"alert {alert.alert_id} is {state}; allowed: alerts resolved with --verdict false")
    machines: dict[date, set[Machine]] = {}
    for alert in alerts:
        for night in alert.nights:
            machines.setdefault(night, set()).add(alert.machine)
    nights = manifests.all_newest(fleet, sorted(machines))
    if not nights:
        raise UserError(f"{fleet}: no nights of false alarms; allowed once an alert was resolved with --verdict false")
    found = {one.night: machines[one.night] for one in nights}
    return Step(
        stage=STAGE,
        name="false-alarms",
        code_version=CODE_VERSION,
        config={night.isoformat(): sorted(map(list, found[night]), key=str) for night in found},
        inputs={one.night.isoformat(): manifests.output(fleet, one) for one in nights},
        work=lambda attempt, inputs: _work(attempt, inputs, found),
        units=len(alerts),
        on_ray=False,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], machines: Mapping[date, set[Machine]]) -> Outcome:
    parts = [_of(inputs[night.isoformat()], machines[night]) for night in sorted(machines)]
    clips = pa.concat_tables([tables.CLIPS.empty_table(), *parts]).sort_by([("clip_id", "ascending")])
    keys = zip(*(clips[name].to_pylist() for name in ("machine_type", "section", "content_hash")), strict=True)
    firsts = {key: place for place, key in reversed(list(enumerate(keys)))}
    clips = clips.take(pa.array(sorted(firsts.values()), pa.int64()))
    counts: Counter[str] = Counter(clips=0) + clip_counts(clips.to_pylist())
    content = f"{counts.pop(CONTENT, 0) % 2**256:064x}"
    return Outcome([attempt.put_table(f"{Folder.CLIPS}/00000.parquet", clips)], {"clips": 0, **counts}, {}, content)


def _of(night: Output, machines: set[Machine]) -> pa.Table:
    """CLIPS of these machines in a night, as healthy ones to learn."""
    clips = night.table(Folder.CLIPS, tables.CLIPS)
    of_rows = zip(*(clips[name].to_pylist() for name in MACHINE), strict=True)
    clips = clips.filter(pa.array([machine in machines for machine in of_rows], pa.bool_()))
    for name, value in (*_HEALTHY.items(), ("duplicate_of", None)):
        column = pa.array([value] * len(clips), pa.string())
        clips = clips.set_column(clips.column_names.index(name), tables.CLIPS.field(name), column)
    return tables.conform(clips, tables.CLIPS)
