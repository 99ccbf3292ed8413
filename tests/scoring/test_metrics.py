import csv
import math
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import metrics, official, submission

HERE = Path(__file__).parent
OFFICIAL = HERE / "official_evaluator"
COLUMNS = ("machine_type", "section", "domain", "label", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])

# One section by hand. Sorted by score: source normal 1, target anomaly 2, source normal 3, target normal 4,
# source anomaly 5, target normal 6, source anomaly 6 (a tie).
CLIPS = [
    ("source", "normal", 1, 0),
    ("target", "anomaly", 2, 0),
    ("source", "normal", 3, 1),
    ("target", "normal", 4, 0),
    ("source", "anomaly", 5, 1),
    ("target", "normal", 6, 0),
    ("source", "anomaly", 6, 1),
]


def scores(clips=CLIPS, machine_type="fan", section="00"):
    columns = [[machine_type] * len(clips), [section] * len(clips), *map(list, zip(*clips, strict=True))]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def figures(clips):
    return metrics.evaluate(scores(clips), "ours").to_pylist()[0]


def metrics_rows(triples, protocol="dcase2023"):
    """METRICS rows that hold only the figures of the official score, one machine type for each triple."""
    rows = [
        {"machine_type": f"machine {n}", "section": "00", "protocol": protocol, "auc_all": s}
        | dict(zip(("auc_source", "auc_target", "pauc"), (s, t, p), strict=True))
        for n, (s, t, p) in enumerate(triples)
    ]
    return pa.Table.from_pylist(rows, schema=tables.METRICS)


def test_one_section_by_hand():
    row = figures(CLIPS)
    # Won pairs of anomaly over normal: target anomaly beats 1; source anomaly 5 beats 1, 3, 4; source anomaly 6 beats
    # 1, 3, 4 and ties with 6. Each domain's normals stand against all three anomalies.
    assert row["auc_source"] == pytest.approx((1 + 2 + 2) / 6, abs=1e-15)
    assert row["auc_target"] == pytest.approx((0 + 1 + 1.5) / 6, abs=1e-15)
    assert row["auc_all"] == pytest.approx((1 + 3 + 3.5) / 12, abs=1e-15)
    # ROC from the top: (0, 0) to (1/4, 1/3) by the tie, so up to 0.1 the area is 0.1 * 0.1 * (4/3) / 2.
    area = 0.1 * 0.1 * (4 / 3) / 2
    assert row["pauc"] == pytest.approx(0.5 * (1 + (area - 0.005) / (0.1 - 0.005)), abs=1e-15)
    assert row["hmean"] == pytest.approx(3 / (1 / row["auc_source"] + 1 / row["auc_target"] + 1 / row["pauc"]))
    assert (row["precision_source"], row["recall_source"]) == (pytest.approx(2 / 3), 1)
    assert row["f1_source"] == pytest.approx(0.8)
    assert (row["precision_target"], row["recall_target"], row["f1_target"]) == (0, 0, 0)
    assert [row[f"num_{d}_{lab}"] for d in tables.DOMAINS for lab in tables.LABELS] == [2, 2, 2, 1]
    assert (row["system"], row["seed"], row["protocol"]) == ("ours", None, "dcase2023")


def test_rows_are_sorted_metrics():
    parts = [scores(section="01"), scores(), scores(machine_type="ToyCar")]
    rows = metrics.evaluate(pa.concat_tables(parts), "ours", seed=3)
    assert rows.schema == tables.METRICS
    keys = [(r["machine_type"], r["section"], r["seed"]) for r in rows.to_pylist()]
    assert keys == [("ToyCar", "00", 3), ("fan", "00", 3), ("fan", "01", 3)]
    assert rows.column("auc_all").to_pylist() == [figures(CLIPS)["auc_all"]] * 3


def test_without_decisions_only_their_figures_are_null():
    row = figures([(*clip[:3], None) for clip in CLIPS])
    expected = figures(CLIPS)
    for name, value in row.items():
        is_decided = name.startswith(("precision", "recall", "f1"))
        assert value == (None if is_decided else expected[name]), name


def test_without_domains_the_protocol_is_another():
    row = figures([(None, *clip[1:]) for clip in CLIPS])
    expected = figures(CLIPS)
    assert row["protocol"] == "no-domain"
    assert (row["auc_all"], row["pauc"]) == (expected["auc_all"], expected["pauc"])
    assert row["hmean"] == pytest.approx(2 / (1 / row["auc_all"] + 1 / row["pauc"]))
    assert all(row[f"{name}_{d}"] is None for name in ("auc", "precision", "f1") for d in tables.DOMAINS)
    table = metrics.evaluate(scores([(None, *clip[1:]) for clip in CLIPS]), "ours")
    assert metrics.official_score(table) == pytest.approx(row["hmean"], abs=1e-15)


def test_a_domain_without_normals_has_no_figure_and_no_official_score():
    clips = [clip for clip in CLIPS if clip[:2] != ("target", "normal")]
    row = figures(clips)
    assert (row["auc_target"], row["hmean"], row["num_target_normal"]) == (None, None, 0)
    assert row["auc_source"] == figures(CLIPS)["auc_source"]
    with pytest.raises(UserError, match="fan section 00 has no auc_target"):
        metrics.official_score(metrics.evaluate(scores(clips), "ours"))
    only_source = figures([clip for clip in CLIPS if clip[0] == "source"])
    assert only_source["precision_target"] is None  # no clips, unlike precision 0


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([c for c in CLIPS if c[1] == "normal"], "fan section 00: 4 normal, 0 anomaly, 0 unlabelled clips"),
        ([c for c in CLIPS if c[1] == "anomaly"], "fan section 00: 0 normal, 3 anomaly"),
        ([*CLIPS, ("source", None, 1, 0)], "4 normal, 3 anomaly, 1 unlabelled"),
        ([("source", None, 1, 0)], "0 normal, 0 anomaly, 1 unlabelled"),
        ([*CLIPS, (None, "normal", 1, 0)], "1 of 8 clips lack a domain"),
        (
            [*CLIPS, ("source", "normal", math.nan, 0), ("source", "normal", math.inf, 0)],
            "2 of 9 scores are not finite",
        ),
    ],
)
def test_sections_that_cannot_be_measured_are_named(clips, message):
    with pytest.raises(UserError, match=message):
        metrics.evaluate(scores(clips), "ours")


def test_an_empty_table_is_refused():
    with pytest.raises(UserError, match="no rows"):
        metrics.evaluate(SCHEMA.empty_table(), "ours")


def test_one_official_score_is_of_one_system_and_protocol():
    rows = metrics_rows([(0.6, 0.5, 0.5)])
    with pytest.raises(UserError, match="machine 0 section 00 has more than one row"):
        metrics.official_score(pa.concat_tables([rows, rows]))
    with pytest.raises(UserError, match="found: dcase2023, no-domain"):
        metrics.official_score(pa.concat_tables([rows, metrics_rows([(0.6, 0.5, 0.5)], "no-domain")]))
    with pytest.raises(UserError, match="found: no section"):
        metrics.official_score(tables.METRICS.empty_table())


def test_an_auc_of_zero_counts_as_epsilon():
    assert metrics.official_score(metrics_rows([(0, 1, 1)])) == pytest.approx(
        3 * 2.220446049250313e-16, rel=1e-9, abs=0
    )


# AUC (source), AUC (target), pAUC of the organisers' AutoEncoder on the 2023 evaluation set, and its official score.
MSE = [
    (0.6667, 0.4829, 0.5091),
    (0.7068, 0.5517, 0.5846),
    (0.6943, 0.5604, 0.5492),
    (0.7968, 0.5610, 0.5368),
    (0.7700, 0.4716, 0.5179),
    (0.7212, 0.6468, 0.5826),
    (0.8816, 0.4532, 0.5947),
]
MAHALANOBIS = [
    (0.8364, 0.5886, 0.5754),
    (0.7409, 0.5068, 0.5955),
    (0.8477, 0.6300, 0.6233),
    (0.8130, 0.4622, 0.5142),
    (0.6678, 0.4090, 0.5089),
    (0.8012, 0.4532, 0.5384),
    (0.8384, 0.9006, 0.6532),
]


@pytest.mark.parametrize(("triples", "published"), [(MSE, 0.59254691), (MAHALANOBIS, 0.61050822)])
def test_published_baseline_scores(triples, published):
    assert metrics.official_score(metrics_rows(triples)) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize(
    ("triples", "published"), [(MSE, (0.7423, 0.5254, 0.5517)), (MAHALANOBIS, (0.7871, 0.5309, 0.5682))]
)
def test_published_baseline_means(triples, published):
    table = official.table(metrics_rows(triples))
    rows = {
        row[0].removesuffix(" over all machine types, sections, and domains"): row for row in table if row and row[0]
    }
    source, target = rows["source harmonic mean"], rows["target harmonic mean"]
    assert (source[2], target[2], source[3]) == pytest.approx(published, abs=1e-4)


def paper_rows():
    with (resources.files("ray_asd") / "paper" / "table1.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", paper_rows(), ids=lambda row: f"{row['all_hmean']} {row['system']}")
def test_paper_table_1_is_the_harmonic_mean_over_machines(row):
    machines = ("bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain", "valve")
    triples = [(float(row[machine]),) * 3 for machine in machines]
    assert round(metrics.official_score(metrics_rows(triples)), 2) == float(row["all_hmean"])


def test_every_figure_of_the_official_evaluator():
    with open(OFFICIAL / "expected_result.csv", newline="") as file:
        expected = [row for row in csv.reader(file) if row[:1] != ["official score ci95"]]
    table = submission.read(str(OFFICIAL / "scores"), str(OFFICIAL)).systems["scores"]
    found = official.table(metrics.evaluate(table, "ours"))
    while not expected[-1]:
        expected.pop()
    assert len(found) == len(expected)
    compared = 0
    for row, texts in zip(found, expected, strict=True):
        assert len(row) == len(texts)
        for cell, text in zip(row, texts, strict=True):
            if isinstance(cell, float):
                assert cell == pytest.approx(float(text), rel=1e-12, abs=0), (row, texts)
                compared += 1
            else:
                assert (cell or "") == text
    assert compared == 7 * (10 + 4 * 5) + 4 * 5 + 1
