"""The official score of each year, on sections small enough for hand and head."""

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics, official
from ray_asd.scoring.protocols import CHOICES, PROTOCOLS, combined

COLUMNS = ("clip_id", "machine_type", "section", "domain", "label", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])


def scores(*sections: tuple[str, str, list[tuple[str | None, str, float]]]) -> pa.Table:
    """Of (machine type, section, clips), each clip being (domain, label, score)."""
    rows = [
        {"machine_type": machine_type, "section": section, "domain": domain, "label": label, "score": float(score)}
        | {"clip_id": f"{machine_type}/{section}/{number}", "decision": None}
        for machine_type, section, clips in sections
        for number, (domain, label, score) in enumerate(clips)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def standardised(area: float) -> float:
    """McClish's pAUC of an area up to a false positive rate of 0.1."""
    return 0.5 * (1 + (area - 0.005) / (0.1 - 0.005))


# Two normal clips at 1 and 3. An anomaly at 2 wins one of two pairs, one at 4 both, one at 0 none. The ROC curve of an
# anomaly that is highest begins at (0, 1): area 0.1 up to the limit; of any other it begins with a rate of 0: area 0.
NORMAL = [(None, "normal", 1.0), (None, "normal", 3.0)]
BEST, MIDDLE, WORST = ([*NORMAL, (None, "anomaly", score)] for score in (4.0, 2.0, 0.0))
NO_PAUC = standardised(0)


def test_2020_is_the_arithmetic_mean_over_ids_then_machine_types() -> None:
    table = scores(("fan", "00", BEST), ("fan", "02", MIDDLE), ("pump", "00", WORST))
    figures = metrics.evaluate(table, "ours", protocol="dcase2020")
    rows = figures.to_pylist()
    assert [row["protocol"] for row in rows] == ["dcase2020"] * 3
    assert [(row["auc_all"], row["pauc"]) for row in rows] == [
        (1.0, 1.0),
        (0.5, pytest.approx(NO_PAUC)),
        (0.0, pytest.approx(NO_PAUC)),
    ]
    fan, pump = (1 + 1 + 0.5 + NO_PAUC) / 4, (0 + NO_PAUC) / 2
    assert metrics.official_score(figures) == pytest.approx((fan + pump) / 2, abs=1e-15)
    assert [row["auc_source"] for row in rows] == [None] * 3
    last = official.table(figures)[-1]
    assert last == ["official score", None, metrics.official_score(figures)]


# Source: normals 1 and 3, anomaly 4 (AUC 1, pAUC 1). Target: normals 5 and 7, anomaly 6 (AUC 1/2, pAUC of area 0).
# The anomalies of the other domain would change both: 6 beats 1 and 3, 4 beats neither 5 nor 7.
SHIFTED = [
    *[("source", "normal", 1.0), ("source", "normal", 3.0), ("source", "anomaly", 4.0)],
    *[("target", "normal", 5.0), ("target", "normal", 7.0), ("target", "anomaly", 6.0)],
]


def test_2021_takes_each_domain_by_itself() -> None:
    figures = metrics.evaluate(scores(("fan", "00", SHIFTED)), "ours", protocol="dcase2021")
    (row,) = figures.to_pylist()
    assert row["protocol"] == "dcase2021"
    assert (row["auc_source"], row["auc_target"]) == (1.0, 0.5)
    assert (row["pauc_source"], row["pauc_target"]) == (pytest.approx(1), pytest.approx(NO_PAUC))
    expected = 4 / (1 + 1 / 0.5 + 1 + 1 / NO_PAUC)
    assert metrics.official_score(figures) == pytest.approx(expected, abs=1e-15)
    assert row["hmean"] == pytest.approx(expected, abs=1e-15)
    titles = official.table(figures)[1]
    assert titles == ["section", "domain", "AUC", "pAUC", "precision", "recall", "F1 score"]
    means = next(line for line in official.table(figures) if line[:1] == ["arithmetic mean"])
    assert means[2:4] == [pytest.approx(0.75), pytest.approx((1 + NO_PAUC) / 2)]


def test_2023_sets_each_domain_against_all_anomalies() -> None:
    for protocol in ("auto", "dcase2023"):
        (row,) = metrics.evaluate(scores(("fan", "00", SHIFTED)), "ours", protocol=protocol).to_pylist()
        assert (row["protocol"], row["auc_source"], row["auc_target"]) == ("dcase2023", 1.0, 0.25)
        assert (row["pauc_source"], row["pauc_target"]) == (None, None)


@pytest.mark.parametrize("protocol", ["dcase2020", "dcase2021", "dcase2023"])
def test_the_bootstrap_gives_the_official_score_where_each_clip_counts_once(protocol: str) -> None:
    rng = np.random.default_rng(1)
    domains = ["source", "target"] if PROTOCOLS[protocol].domains else [None, None]
    clips = [(domain, label, rng.random()) for domain in domains for label in tables.LABELS for _ in range(9)]
    table = scores(("fan", "00", clips), ("fan", "01", clips[::-1]), ("pump", "00", clips[3:]))
    once = np.ones((1, len(table)), dtype=np.int64)
    score = metrics.official_score(metrics.evaluate(table, "ours", protocol=protocol))
    assert bootstrap.resampled_scores(table, once, protocol)[0] == pytest.approx(score, abs=1e-12)
    low, high = bootstrap.interval(table, 200, protocol=protocol)
    assert low < score < high


@pytest.mark.parametrize(
    ("protocol", "clips", "message"),
    [
        (
            "dcase2021",
            BEST,
            "fan section 00: protocol dcase2021 on clips without .*; allowed there: auto, dcase2020$",
        ),
        ("dcase2023", BEST, "protocol dcase2023 on clips without domains"),
        ("dcase2020", SHIFTED, "protocol dcase2020 on clips with domains; allowed there: auto, dcase2021, dcase2023"),
        ("dcase1999", BEST, "unknown protocol 'dcase1999'; allowed: auto, dcase2020, dcase2021, dcase2023"),
        ("no-domain", BEST, "unknown protocol 'no-domain'"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused_in_one_line(protocol: str, clips: list, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        metrics.evaluate(scores(("fan", "00", clips)), "ours", protocol=protocol)
    assert "\n" not in str(caught.value)


def test_2021_needs_anomalies_in_each_domain() -> None:
    table = scores(("fan", "00", [*SHIFTED[:5]]))
    figures = metrics.evaluate(table, "ours", protocol="dcase2021")
    assert figures["auc_target"].to_pylist() == [None]
    with pytest.raises(UserError, match="fan section 00 has no auc_target"):
        metrics.official_score(figures)
    with pytest.raises(UserError, match="fan section 00 has no auc_target"):
        bootstrap.resampled_scores(table, np.ones((1, 5), dtype=np.int64), "dcase2021")


def test_what_can_be_chosen_is_there() -> None:
    assert set(CHOICES) - {"auto"} <= set(PROTOCOLS)
    assert all(set(protocol.figures) <= set(tables.METRICS.names) for protocol in PROTOCOLS.values())


def test_combined_keeps_the_axes_behind_sections_and_figures() -> None:
    values = np.array([[[0.2, 1.0], [0.4, 1.0]], [[0.9, 1.0], [0.7, 1.0]], [[0.5, 1.0], [0.5, 1.0]]])
    found = combined("dcase2020", ["fan", "pump", "pump"], values)
    assert found == pytest.approx([(0.3 + 0.65) / 2, 1.0])
