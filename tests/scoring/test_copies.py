"""Copies of a clip count once; clips that only sound alike, and clips without a known content, all count."""

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, comparison, metrics
from ray_asd.scoring.copies import counted

COLUMNS = ("clip_id", "machine_type", "section", "domain", "label", "content_hash", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])
CLIPS = [("d/fan/test/a.wav", "normal", "1", 0.1), ("d/fan/test/b.wav", "anomaly", "2", 0.9)]
CLIPS += [("d/fan/test/c.wav", "normal", "3", 0.7), ("d/fan/test/d.wav", "anomaly", "4", 0.6)]


def scores(*clips: tuple[str, str, str, float], **values: str) -> pa.Table:
    rows = [
        {"clip_id": name, "machine_type": "fan", "section": "00", "domain": None, "label": label}
        | {"content_hash": content, "score": score, "decision": None}
        | values
        for name, label, content, score in clips
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_a_copy_is_the_same_content_under_the_same_file_name() -> None:
    copies = [("d/backup/fan/b.wav", "anomaly", "2", 0.9), ("d/a zip/fan/test/b.wav", "anomaly", "2", 0.9)]
    alike = [
        ("d/fan/test/e.wav", "anomaly", "2", 0.9),
        ("d/x/b.wav", "normal", "2", 0.9),
        ("d/x/b.wav2", "normal", "1", 1),
    ]
    table = scores(*CLIPS, *copies, *alike)
    assert counted(table).tolist() == [True, False, True, True, False, True, True, True, True]
    assert counted(table.drop_columns("content_hash")).all()
    other = scores(CLIPS[0], section="01")
    assert counted(pa.concat_tables([table, other])).sum() == 8
    unknown = scores(CLIPS[0], CLIPS[0]).set_column(
        5, SCHEMA.field("content_hash").with_nullable(True), pa.nulls(2, pa.string())
    )
    assert counted(unknown).all(), "an earlier version did not tell"


def test_figures_and_intervals_are_those_without_copies() -> None:
    once = scores(*CLIPS)
    doubled = scores(*CLIPS, ("d/z/b.wav", "anomaly", "2", 0.9), ("d/z/c.wav", "normal", "3", 0.7))
    assert metrics.evaluate(doubled, "ours").equals(metrics.evaluate(once, "ours"))
    assert (
        metrics.evaluate(doubled.drop_columns("content_hash"), "ours")["auc_all"]
        != metrics.evaluate(once, "ours")["auc_all"]
    )
    assert bootstrap.interval(doubled, 100) == bootstrap.interval(once, 100)
    weights = bootstrap.resample(doubled, 50, np.random.default_rng(0))
    assert not weights[:, 4:].any()


def test_nights_that_use_the_same_names_are_not_compared() -> None:
    monday = scores(*CLIPS)
    tuesday = scores(*((name, label, f"t{content}", score) for name, label, content, score in CLIPS))
    comparison.compare({"one": {0: monday}, "other": {0: monday}}, resamples=5)
    with pytest.raises(UserError, match=r"one with seed 0 and other with seed 0 differ in 4 clip\(s\) or their labels"):
        comparison.compare({"one": {0: monday}, "other": {0: tuesday}}, resamples=5)


def test_a_machine_without_both_labels_costs_the_one_figure_alone() -> None:
    pump = [(name.replace("fan", "pump"), "normal", f"p{content}", score) for name, _, content, score in CLIPS]
    table = pa.concat_tables([scores(*CLIPS), scores(*pump, machine_type="pump")])
    figures = metrics.evaluate(table, "ours")
    assert figures.equals(metrics.evaluate(scores(*CLIPS), "ours"))
    why = "pump section 00: 4 normal, 0 anomaly, 0 unlabelled clips; both labels are needed on all"
    assert metrics.unjudged(table) == [why]
    with pytest.raises(UserError, match=why):
        metrics.sections(table)
    with pytest.raises(UserError, match=why):
        metrics.evaluate(scores(*pump, machine_type="pump"), "ours")
