"""What a page says of machines and certainty, against figures that can be told by hand or come from METRICS."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from made_up import Plant, plant
from ray_asd import tables
from ray_asd.report import background, certainty, machines, suspects
from ray_asd.report.machines import Group
from ray_asd.report.rows import Row
from ray_asd.report.run import Run, runs
from ray_asd.tables import Folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("plant")
    return plant(str(folder / "runs"), str(folder / "recordings"))


@pytest.fixture(scope="module")
def run(made: Plant) -> Run:
    return runs([made.metrics], [])[0]


def group(alarms: int, clips: int, threshold: float | None = 1.0, rate: float | None = 0.1) -> Group:
    unknown = np.array([None] * clips, dtype=object)
    return Group("fan", "00", np.zeros(clips), unknown, unknown, alarms, threshold, "calibration", rate)


@pytest.mark.parametrize(
    ("alarms", "clips", "verdict"),
    [
        (0, 40, "as expected"),
        (4, 40, "as expected"),
        (9, 40, "as expected"),
        (10, 40, "sounds wrong"),
        (1, 1, "as expected"),
    ],
)
def test_a_machine_sounds_wrong_where_healthy_ones_hardly_give_so_many_alarms(
    alarms: int, clips: int, verdict: str
) -> None:
    found = group(alarms, clips)
    by_hand = sum(stats.binom.pmf(number, clips, 0.1) for number in range(alarms, clips + 1))
    assert found.chance == pytest.approx(by_hand)
    assert found.verdict == verdict


def test_verdicts_without_threshold_or_rate() -> None:
    assert group(0, 40, threshold=None).verdict == "no threshold"
    assert group(0, 40, rate=None).verdict == "as expected"
    assert group(1, 40, rate=None).verdict == "sounds wrong", "a threshold given by hand aims at no rate"


def test_the_most_urgent_machine_comes_first() -> None:
    found = [group(0, 40), group(40, 40), group(20, 40), group(3, 40, threshold=None)]
    assert [one.alarms for one in sorted(found, key=lambda one: one.urgency)] == [40, 20, 3, 0]


def test_histograms_hold_every_clip_once(run: Run) -> None:
    section = machines.histograms(run, machines.groups(run))
    records = section.files["histograms.csv"]
    assert sum(record["clips"] for record in records) == 48
    for domain in tables.DOMAINS:
        for label in tables.LABELS:
            own = [
                r["clips"] for r in records if (r["machine_type"], r["domain"], r["label"]) == ("fan", domain, label)
            ]
            assert sum(own) == 6
    assert [chart.title for chart in section.charts] == [
        "fan 00, source",
        "fan 00, target",
        "valve 00, source",
        "valve 00, target",
    ]


def test_drawn_roc_curves_have_the_areas_of_metrics(run: Run, made: Plant) -> None:
    records = certainty.curves(run, machines.groups(run)).files["roc.csv"]
    rows = made.metrics.table(Folder.METRICS, tables.METRICS).to_pylist()
    checked = 0
    for row in [row for row in rows if row["system"] == run.system]:
        for kind in ("all", *tables.DOMAINS):
            own = [r for r in records if (r["machine_type"], r["clips"]) == (row["machine_type"], kind)]
            x, y = ([r[f"{name}_positive_rate"] for r in own] for name in ("false", "true"))
            assert np.trapezoid(y, x) == pytest.approx(row[f"auc_{kind}"], abs=1e-12)
            checked += 1
        x, y = zip(*((r["false_positive_rate"], r["true_positive_rate"]) for r in own_all(records, row)), strict=True)
        inside = np.linspace(0, 0.1, 100_001)
        area = np.trapezoid(np.interp(inside, x, y), inside)
        assert 0.5 * (1 + (area - 0.005) / (0.1 - 0.005)) == pytest.approx(row["pauc"], abs=1e-3)
    assert checked == 6


def own_all(records: list[dict[str, object]], row: dict[str, object]) -> list[dict[str, object]]:
    return [r for r in records if (r["machine_type"], r["clips"]) == (row["machine_type"], "all")]


def test_figures_stand_beside_the_floors_with_intervals_around_them(run: Run, made: Plant) -> None:
    section = certainty.metrics(run)
    fan, valve, whole = section.files["metrics.csv"]
    assert (fan["hmean"], fan["low"], fan["high"]) == (1.0, 1.0, 1.0), "all anomalies lie above all normal clips"
    assert valve["low"] < valve["hmean"] < valve["high"]
    floors = [row for row in made.metrics.table(Folder.METRICS, tables.METRICS).to_pylist() if row["seed"] is None]
    assert [fan["floor"], valve["floor"]] == [row["hmean"] for row in floors]
    assert whole["hmean"] == run.row.score
    assert set(tables.METRICS.names) < set(fan)


@pytest.mark.parametrize(
    ("low", "high", "floor", "standing", "doubtful"),
    [
        (0.6, 0.8, 0.5, "It beats the floor.", False),
        (0.6, 0.8, 0.9, "It does not beat the floor: use the floor instead.", True),
        (0.6, 0.8, 0.7, "It cannot be told from the floor: the interval holds the floor's figure.", True),
        (None, None, 0.7, "Nothing says whether it beats the floor.", True),
    ],
)
def test_where_a_system_stands(
    run: Run, low: float | None, high: float | None, floor: float, standing: str, doubtful: bool
) -> None:
    from dataclasses import replace

    row = Row("mine", 0, 0.7, low, high, None, {}, "uri")
    found = replace(run, row=row, floor=Row("floor", None, floor, 0.1, 0.9, None, {}, "uri"))
    assert certainty.standing(found) == standing
    assert certainty.is_doubtful(found) is doubtful


def test_suspects_without_a_threshold_are_ranked_within_their_section(tmp_path: Path) -> None:
    found = plant(str(tmp_path / "runs"), str(tmp_path / "recordings"), thresholds=False)
    (alone,) = runs([], [found.scores])
    rows = suspects.suspects(alone, 3, False).files["clips.csv"]
    assert [row["excess"] for row in rows] == sorted((row["excess"] for row in rows), reverse=True)
    scores = {"fan": [], "valve": []}
    for row in found.scores.table(Folder.SCORES).to_pylist():
        scores[row["machine_type"]].append(row["score"])
    own = scores[rows[0]["machine_type"]]
    low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
    assert rows[0]["excess"] == pytest.approx((rows[0]["score"] - middle) / (high - low))


def test_curves_layers_conditions_and_rejects_are_those_of_the_tables(run: Run) -> None:
    trained = background.training(run)
    assert [record["loss"] for record in trained.files["training.csv"]] == [10.0 / step for step in range(1, 21)]
    assert [record["weight"] for record in trained.files["layer_weights.csv"]] == [0.1, 0.3, 0.6]
    assert [chart.title for chart in trained.charts] == [
        "plant: loss",
        "plant: accuracy",
        "plant: learning rate",
        "Weights of the layers",
    ]
    recorded = background.recordings(run)
    conditions = recorded.files["conditions.csv"]
    assert sum(record["clips"] for record in conditions) == 60
    fan = [r["clips"] for r in conditions if (r["condition"], r["split"]) == ("fan|speed=0", "train")]
    assert fan == [2]
    assert [(r["reason"], r["files"]) for r in recorded.files["rejects.csv"]] == [("truncated", 2), ("silent", 1)]
    assert all(record["means"] == tables.REASONS[record["reason"]] for record in recorded.files["rejects.csv"])


def test_provenance_lists_every_stage_with_digests_and_files(run: Run, made: Plant) -> None:
    section = background.provenance(run)
    stages = section.files["stages.csv"]
    assert {stage["stage"] for stage in stages} == {"evaluate", "score", "embed", "train", "ingest"}
    assert stages[0]["digest"] == made.metrics.marker.digest
    assert {file["sha256"] for file in section.files["files.csv"]} >= {f.sha256 for f in made.scores.marker.files}
