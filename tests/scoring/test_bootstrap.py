from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics, submission

OFFICIAL = Path(__file__).parent / "official_evaluator"
COLUMNS = ("machine_type", "section", "domain", "label", "score", "decision", "clip_id")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])


@pytest.fixture(scope="module")
def official():
    return submission.read(str(OFFICIAL / "scores"), str(OFFICIAL)).systems["scores"]


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


def test_bias_corrected_ends_by_hand():
    drawn = np.arange(1000.0)
    assert bootstrap.bias_corrected(drawn, 499.5) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    z = stats.norm.ppf([0.7, 0.025, 0.975])  # 700 of 1000 lie below
    expected = np.quantile(drawn, stats.norm.cdf(2 * z[0] + z[1:]))
    assert bootstrap.bias_corrected(drawn, 699.5) == pytest.approx(tuple(expected))
    low, high = bootstrap.bias_corrected(-drawn, -699.5)
    assert (-high, -low) == pytest.approx(tuple(expected))
    assert bootstrap.bias_corrected(drawn, 2000.0) == pytest.approx((999, 999), abs=1)
    assert bootstrap.bias_corrected(np.full(10, 0.5), 0.5) == (0.5, 0.5)


def test_bias_corrected_ends_follow_a_change_of_scale():
    """The ends of exp(x) are exp of the ends of x."""
    drawn = np.random.default_rng(10).normal(1.0, 2.0, 4001)
    ends = bootstrap.bias_corrected(np.exp(drawn), np.exp(0.5), level=0.8)
    assert ends == pytest.approx(tuple(np.exp(bootstrap.bias_corrected(drawn, 0.5, level=0.8))), rel=2e-3)


def test_interval_is_the_bias_corrected_one_of_the_resampled_scores(official):
    counts = bootstrap.resample(official, 300, np.random.default_rng(5))
    drawn = bootstrap.resampled_scores(official, counts)
    score = metrics.official_score(metrics.evaluate(official, "ours"))
    expected = bootstrap.bias_corrected(drawn, score, 0.9)
    assert bootstrap.interval(official, resamples=300, seed=5, level=0.9) == pytest.approx(expected, abs=1e-12)


def test_coverage_of_a_concave_figure():
    """28 machines, 10 clips a cell, AUC 0.64: a mean of figures that err is too small, a resampled one again."""
    shift, clips = np.sqrt(2) * stats.norm.ppf(0.64), fleet(28, 10)
    fpr = np.linspace(0, 0.1, 10_001)
    area = np.trapezoid(stats.norm.cdf(stats.norm.ppf(fpr) + shift), fpr)
    true = stats.hmean([0.64, 0.64, 0.5 * (1 + (area - 0.005) / 0.095)])
    anomaly = np.array([row["label"] == "anomaly" for row in clips])
    percentile, corrected = [], []
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(size=len(clips)) + shift * anomaly
        table = pa.Table.from_pylist([row | {"score": x} for row, x in zip(clips, scores, strict=True)], schema=SCHEMA)
        counts = bootstrap.resample(table, 200, np.random.default_rng(0))
        once, *drawn = bootstrap.resampled_scores(table, np.vstack([np.ones_like(counts[:1]), counts]))
        percentile.append(np.quantile(drawn, [0.025, 0.975]))
        corrected.append(bootstrap.bias_corrected(np.array(drawn), once))
    low, high = np.transpose(percentile)
    assert np.mean(true > high) > 0.1 > 0.05 > np.mean(true < low), "the percentiles miss on one side"
    low, high = np.transpose(corrected)
    assert np.mean((low <= true) & (true <= high)) >= 0.9


def fleet(machines, clips):
    """Rows without scores, ``clips`` of each machine, domain and label."""
    return [
        {"machine_type": f"machine{machine}", "section": "00", "domain": domain, "label": label}
        | {"clip_id": f"{machine}/{domain}/{label}/{number}"}
        for machine in range(machines)
        for domain in tables.DOMAINS
        for label in tables.LABELS
        for number in range(clips)
    ]


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
