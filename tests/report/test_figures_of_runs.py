"""What a page says of machines and certainty, against figures that can be told by hand or come from METRICS."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from made_up import BASELINE, Plant, evaluated, plant, recipe, scored, scores
from ray_asd import reasons, tables
from ray_asd.report import background, certainty, machines, page, suspects
from ray_asd.report.groups import Group, Limit, groups_of, judged
from ray_asd.report.rows import Difference, Row, collect
from ray_asd.report.run import Run, runs
from ray_asd.scoring import comparison
from ray_asd.stages.comparison import evaluate
from ray_asd.tables import Folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("plant")
    return plant(str(folder / "runs"), str(folder / "recordings"))


@pytest.fixture(scope="module")
def run(made: Plant) -> Run:
    return runs([made.metrics], [])[0]


def group(alarms: int, clips: int, threshold: float | None = 1.0, **limit: Any) -> Group:
    unknown = np.array([None] * clips, dtype=object)
    behind = Limit(**{"num_clips": 59, "num_above": 5} | limit)
    return Group("fan", "00", np.zeros(clips), unknown, unknown, alarms, threshold, behind)


@pytest.mark.parametrize("alarms", [0, 4, 9, 40])
def test_the_chance_of_so_many_alarms_is_that_of_a_rate_that_is_not_known(alarms: int) -> None:
    found = group(alarms, 40)
    by_hand = stats.beta.expect(lambda rate: stats.binom.sf(alarms - 1, 40, rate), (6, 54))
    assert found.chance == pytest.approx(by_hand, rel=1e-6)
    assert found.expected == pytest.approx(40 * stats.beta.mean(6, 54))


def test_a_machine_sounds_wrong_where_its_alarms_stand_out_among_those_of_all() -> None:
    verdicts = {9: "sounds wrong", 8: "as expected"}  # chances 0.048 and 0.088
    for alarms, verdict in verdicts.items():
        assert [one.verdict for one in judged([group(alarms, 40)])] == [verdict]
    among_healthy = judged([group(9, 40), *[group(3, 40)] * 4, group(20, 40)])
    assert [one.verdict for one in among_healthy] == ["as expected"] * 5 + ["sounds wrong"]
    among_faulty = judged([group(9, 40), *[group(20, 40)] * 20])
    assert {one.verdict for one in among_faulty} == {"sounds wrong"}


def test_verdicts_need_a_threshold_and_enough_calibration_clips() -> None:
    assert judged([group(0, 40, threshold=None)])[0].verdict == "no threshold"
    for limit in ({"num_clips": 19}, {"num_above": None}, {"num_clips": 0, "num_above": None}):
        (found,) = judged([group(40, 40, **limit)])
        assert (found.verdict, found.chance, found.expected) == ("not judged", None, None)
    (found,) = judged([group(40, 40, num_clips=20, num_above=1)])
    assert found.verdict == "sounds wrong"
    assert judged([group(40, 40, num_clips=20, num_above=20)])[0].verdict == "as expected", "healthy clips alarm too"


def test_a_machine_that_is_not_judged_is_told_of_on_top(run: Run) -> None:
    few = judged([group(40, 40, num_clips=19)])
    text = machines.machines(run, few).lead
    assert text.startswith("Nothing says how often healthy machines would alarm. 1 are not judged: ")
    tiles = {tile.name: tile for tile in page.tiles(run, [*few, *judged([group(3, 40)])])}
    wrong = tiles["Machines that sound wrong"]
    assert (wrong.figure, wrong.detail, wrong.tone) == ("0 of 2", "none; 1 not judged", "plain")
    assert (tiles["Alarms"].figure, tiles["Alarms"].detail) == ("43 of 80 clips", "")


def test_what_rows_of_thresholds_lack_is_not_known() -> None:
    older = {"machine_type": "fan", "threshold": 0.2, "source": "calibration", "num_clips": 40}
    assert Limit.of(older) == Limit("calibration", None, 40, None)
    assert Limit.of({}) == Limit("not recorded")


def test_the_most_urgent_machine_comes_first() -> None:
    found = [group(0, 40), group(40, 40), group(20, 40), group(3, 40, threshold=None)]
    assert [one.alarms for one in sorted(judged(found), key=lambda one: one.urgency)] == [40, 20, 3, 0]


def test_histograms_hold_every_clip_once(run: Run) -> None:
    section = machines.histograms(run, groups_of(run))
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
    records = certainty.curves(run, groups_of(run)).files["roc.csv"]
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
    baselines = [row for row in made.metrics.table(Folder.METRICS, tables.METRICS).to_pylist() if row["seed"] is None]
    assert [fan["baseline"], valve["baseline"]] == [row["hmean"] for row in baselines]
    assert whole["mean"] == run.row.score
    assert set(tables.METRICS.names) < set(fan)


def test_the_difference_to_the_floor_is_paired_over_the_same_clips(run: Run, made: Plant) -> None:
    given = {"mine": {0: made.scores.table(Folder.SCORES)}, "baseline": {None: made.baseline.table(Folder.SCORES)}}
    (pair,) = comparison.compare(given, evaluate.RESAMPLES, level=evaluate.LEVEL).pairs.to_pylist()
    assert run.row.against == Difference(pair["difference"], pair["low"], pair["high"])
    assert run.row.against.value == pytest.approx(run.row.score - run.baseline.score, abs=1e-12)
    assert run.baseline.against is None
    whole = certainty.metrics(run).files["metrics.csv"][-1]
    assert [whole[f"difference{end}"] for end in ("", "_low", "_high")] == [*pair.values()][2:]


def test_a_baseline_that_heard_other_clips_is_not_compared(tmp_path: Path) -> None:
    mine, baseline = scores(1, 0.5), scores(2, 0.3, ("fan",))
    found = evaluated(
        str(tmp_path), scored(str(tmp_path), recipe("hubert"), mine), scored(str(tmp_path), None, baseline)
    )
    assert not any("against" in system for system in found.marker.summary["systems"])
    assert [row.against for row in collect([found])] == [None, None]
    same = evaluated(str(tmp_path), scored(str(tmp_path), recipe("hubert"), mine), scored(str(tmp_path), None, mine))
    ours, baselines = same.marker.summary["systems"]
    assert ours["against"] == {"system": BASELINE, "seed": None, "difference": 0, "low": 0, "high": 0}
    assert "against" not in baselines


@pytest.mark.parametrize(
    ("against", "standing", "doubtful", "tone"),
    [
        (Difference(0.1, 0.01, 0.2), "It beats the baseline.", False, "good"),
        (Difference(-0.1, -0.2, -0.01), "It is worse than the baseline: use the baseline instead.", True, "bad"),
        (
            Difference(0.1, -0.01, 0.2),
            "It is not told apart from the baseline: the interval of their difference holds 0.",
            True,
            "plain",
        ),
        (None, "Nothing says whether it beats the baseline.", True, "plain"),
    ],
)
def test_where_a_system_stands(run: Run, against: Difference | None, standing: str, doubtful: bool, tone: str) -> None:
    """By the difference alone: the system's own interval lies above the baseline's figure in all cases."""
    row = Row("mine", 0, 0.7, 0.6, 0.8, None, {}, "uri", against=against)
    found = replace(run, row=row, baseline=Row("baseline", None, 0.5, 0.1, 0.9, None, {}, "uri"))
    assert certainty.standing(found) == standing
    assert certainty.is_doubtful(found) is doubtful
    (tile,) = (tile for tile in page.tiles(found, []) if tile.name == "Baseline, without training")
    assert (tile.detail, tile.tone) == (standing, tone)
    told = "The difference is +10.00 [+1.00, +20.00] points: 95% interval, paired over the same clips."
    assert (told in certainty.metrics(found).lead) == (not doubtful)


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
    assert all(record["means"] == reasons.REJECTED[record["reason"]] for record in recorded.files["rejects.csv"])


def test_provenance_lists_every_stage_with_digests_and_files(run: Run, made: Plant) -> None:
    section = background.provenance(run)
    stages = section.files["stages.csv"]
    assert {stage["stage"] for stage in stages} == {"evaluate", "score", "enroll", "embed", "train", "ingest"}
    assert stages[0]["digest"] == made.metrics.marker.digest
    assert {file["sha256"] for file in section.files["files.csv"]} >= {f.sha256 for f in made.scores.marker.files}
