from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics, submission

OFFICIAL = Path(__file__).parent / "official_evaluator"
COLUMNS = ("machine_type", "section", "domain", "label", "score", "decision", "clip_id")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])


@pytest.fixture(scope="module")
def official():
    return submission.read(str(OFFICIAL / "scores"), str(OFFICIAL))["scores"]


def made_up(seed, domains=True, levels=6):
    """Two machine types, 60 clips each in shuffled order, with few distinct scores, hence many ties."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "clip_id": f"{machine_type}/{number}",
            "machine_type": machine_type,
            "section": "00",
            "domain": tables.DOMAINS[number % 2] if domains else None,
            "label": tables.LABELS[number // 2 % 2],
            "score": float(rng.integers(levels) + number // 2 % 2),
        }
        for machine_type in ("fan", "valve")
        for number in range(60)
    ]
    return pa.Table.from_pylist([rows[i] for i in rng.permutation(len(rows))], schema=SCHEMA)


def naive(table, counts):
    """The official score of the table that really holds each row as often as it was drawn."""
    drawn = table.take(np.repeat(np.arange(len(table)), counts))
    return metrics.official_score(metrics.evaluate(drawn, "drawn"))


def test_each_clip_once_gives_the_official_score(official):
    for table in (official, made_up(0), made_up(1, domains=False), made_up(2, levels=1000)):
        once = bootstrap.resampled_scores(table, np.ones((1, len(table)), dtype=np.int64))
        assert once == pytest.approx(metrics.official_score(metrics.evaluate(table, "ours")), abs=1e-12)


def test_equals_a_naive_bootstrap(official):
    rng = np.random.default_rng(3)
    for table, resamples in ((official, 5), (made_up(4), 25), (made_up(5, domains=False), 25)):
        counts = bootstrap.resample(table, resamples, rng)
        expected = [naive(table, row) for row in counts]
        assert len(set(expected)) == resamples
        np.testing.assert_allclose(bootstrap.resampled_scores(table, counts), expected, rtol=0, atol=1e-12)


def test_counts_of_every_cell_stay(official):
    counts = bootstrap.resample(official, 20, np.random.default_rng(6))
    assert counts.shape == (20, len(official))
    keys = list(zip(*(official[name].to_pylist() for name in COLUMNS[:4]), strict=True))
    for key in set(keys):
        members = [number for number, other in enumerate(keys) if other == key]
        assert (counts[:, members].sum(axis=1) == len(members)).all()
    assert counts.max() > 2
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)  # the share of clips that are not drawn


def test_interval_holds_the_score_and_is_repeatable(official):
    score = metrics.official_score(metrics.evaluate(official, "ours"))
    low, high = bootstrap.interval(official, resamples=400)
    assert low < score < high
    assert high - low < 0.2
    assert bootstrap.interval(official, resamples=400) == (low, high)
    assert bootstrap.interval(official, resamples=400, seed=1) != (low, high)
    narrow = bootstrap.interval(official, resamples=400, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_does_not_depend_on_the_order_of_rows(official):
    shuffled = official.take(np.random.default_rng(7).permutation(len(official)))
    assert bootstrap.interval(shuffled, resamples=200) == pytest.approx(
        bootstrap.interval(official, resamples=200), abs=1e-12
    )


def test_draws_are_of_clips_and_not_of_their_scores(official):
    changed = official.set_column(
        official.column_names.index("score"), "score", pa.array(np.random.default_rng(9).normal(size=len(official)))
    )
    counts = [bootstrap.resample(table, 5, np.random.default_rng(0)) for table in (official, changed)]
    np.testing.assert_array_equal(*counts)


def test_interval_of_separable_scores_is_a_point():
    rows = [
        {"machine_type": "fan", "section": "00", "domain": domain, "label": label, "score": float(label == "anomaly")}
        | {"clip_id": f"{domain}/{label}/{number}"}
        for domain in tables.DOMAINS
        for label in tables.LABELS
        for number in range(5)
    ]
    assert bootstrap.interval(pa.Table.from_pylist(rows, schema=SCHEMA), resamples=50) == (1, 1)


def test_what_has_no_official_score_has_no_interval():
    table = made_up(8)
    one_sided = table.filter([row["domain"] != "target" or row["label"] == "anomaly" for row in table.to_pylist()])
    with pytest.raises(UserError, match="fan section 00 has no auc_target"):
        bootstrap.interval(one_sided, resamples=10)
    mixed = [row | {"domain": None if row["machine_type"] == "fan" else row["domain"]} for row in table.to_pylist()]
    with pytest.raises(UserError, match="found: dcase2023, no-domain"):
        bootstrap.interval(pa.Table.from_pylist(mixed, schema=SCHEMA), resamples=10)
