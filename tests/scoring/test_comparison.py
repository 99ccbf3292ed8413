"""Systems compared on the same clips, against a bootstrap that really draws rows and evaluates what it drew."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, comparison, metrics

COLUMNS = ("clip_id", "machine_type", "section", "domain", "label", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])
STRATA = ("machine_type", "domain", "label")


def clips(per_machine=80):
    """Two machine types, all domains and labels alike; clip_ids in no order of machine, domain or label."""
    return [
        {"clip_id": f"d/{number * 7 % per_machine:03d}/{machine}.wav", "machine_type": machine, "section": "00"}
        | {"domain": tables.DOMAINS[number % 2], "label": tables.LABELS[number // 2 % 2], "decision": None}
        for machine in ("fan", "valve")
        for number in range(per_machine)
    ]


def scored(rows, scores):
    return pa.Table.from_pylist(
        [row | {"score": float(score)} for row, score in zip(rows, scores, strict=True)], SCHEMA
    )


def systems(seed=0, noise=0.2):
    """Two systems that agree on what is hard; the better one with two seeds. And one of its own mind."""
    rows, rng = clips(), np.random.default_rng(seed)
    anomaly = np.array([row["label"] == "anomaly" for row in rows])
    shared = rng.normal(size=len(rows))

    def table(gain):
        return scored(rows, shared + gain * anomaly + noise * rng.normal(size=len(rows)))

    return {
        "good": {0: table(1.2), 1: table(1.1)},
        "fair": {5: table(0.8)},
        "floor": {None: scored(rows, rng.normal(size=len(rows)) + anomaly)},
    }


def official(table):
    return metrics.official_score(metrics.evaluate(table, "any"))


def by_key(table, *keys):
    return {tuple(row[key] for key in keys): row for row in table.to_pylist()}


def test_cells_hold_mean_and_deviation_over_seeds():
    given = systems()
    found = comparison.compare(given, resamples=20).cells
    assert found.schema == tables.CELLS
    good, fair, floor = found.to_pylist()
    first, second = (official(table) for table in given["good"].values())
    assert good["mean"] == pytest.approx((first + second) / 2, abs=1e-12)
    assert good["std"] == pytest.approx(abs(first - second) / np.sqrt(2), abs=1e-12)
    assert [row["seeds"] for row in (good, fair, floor)] == [[0, 1], [5], []]
    assert [row["std"] for row in (fair, floor)] == [None, None]
    assert [row["system"] for row in (good, fair, floor)] == ["good", "fair", "floor"]


def test_pairs_are_all_of_them_in_order():
    given = systems()
    found = comparison.compare(given, resamples=20)
    means = {row["system"]: row["mean"] for row in found.cells.to_pylist()}
    assert found.pairs.schema == tables.PAIRS
    pairs = [(row["system_a"], row["system_b"]) for row in found.pairs.to_pylist()]
    assert pairs == [("good", "fair"), ("good", "floor"), ("fair", "floor")]
    for row in found.pairs.to_pylist():
        assert row["difference"] == pytest.approx(means[row["system_a"]] - means[row["system_b"]], abs=1e-12)


def test_equals_a_bootstrap_that_copies_rows():
    """The same draws, made into real tables: every system and seed is evaluated on each of them."""
    given, resamples = systems(1), 40
    ordered = {name: [t.sort_by("clip_id") for t in seeds.values()] for name, seeds in given.items()}
    counts = bootstrap.resample(ordered["good"][0], resamples, np.random.default_rng(7))
    drawn = {
        name: np.array(
            [
                np.mean([official(table.take(np.repeat(np.arange(len(table)), row))) for table in seeds])
                for row in counts
            ]
        )
        for name, seeds in ordered.items()
    }
    found = comparison.compare(given, resamples, seed=7, level=0.8)
    for (name,), row in by_key(found.cells, "system").items():
        expected = bootstrap.bias_corrected(drawn[name], row["mean"], 0.8)
        assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-12)
    for (a, b), row in by_key(found.pairs, "system_a", "system_b").items():
        expected = bootstrap.bias_corrected(drawn[a] - drawn[b], row["difference"], 0.8)
        assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-12)


def test_agrees_with_draws_of_another_making():
    """Clips drawn within machine, domain and label by numpy's choice: only the ends' own noise may differ."""
    fans = pc.field("machine_type") == "fan"
    given = {name: seeds.popitem()[1].filter(fans) for name, seeds in systems(2).items()}
    keys = list(zip(*(given["good"][name].to_pylist() for name in STRATA), strict=True))
    strata = [[number for number, other in enumerate(keys) if other == key] for key in sorted(set(keys))]
    rng, differences = np.random.default_rng(11), []
    for _ in range(400):
        drawn = np.concatenate([rng.choice(members, len(members)) for members in strata])
        differences.append(official(given["good"].take(drawn)) - official(given["fair"].take(drawn)))
    found = comparison.compare({name: {0: table} for name, table in given.items()}, resamples=4000, level=0.8)
    row = found.pairs.to_pylist()[0]
    low, high = bootstrap.bias_corrected(np.array(differences), row["difference"], 0.8)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=(high - low) / 5)


def test_a_system_does_not_differ_from_itself():
    given = systems(3)
    found = comparison.compare({"a": given["good"], "b": given["good"]}, resamples=50).pairs.to_pylist()
    assert [(row["difference"], row["low"], row["high"]) for row in found] == [(0, 0, 0)]


def test_pairing_narrows_the_interval_of_systems_that_agree():
    found = comparison.compare(systems(4, noise=0.05), resamples=400)
    cells = by_key(found.cells, "system")
    good, fair = (cells[name,] for name in ("good", "fair"))
    unpaired = np.hypot(good["high"] - good["low"], fair["high"] - fair["low"])
    pair = by_key(found.pairs, "system_a", "system_b")["good", "fair"]
    assert 0 < pair["high"] - pair["low"] < unpaired / 3


def test_neither_order_of_rows_nor_other_systems_change_a_figure():
    given = systems(5)
    shuffled = {
        name: {seed: table.take(np.random.default_rng(6).permutation(len(table))) for seed, table in seeds.items()}
        for name, seeds in given.items()
    }
    found = comparison.compare(given, resamples=50)
    assert comparison.compare(shuffled, resamples=50).pairs.equals(found.pairs)
    alone = comparison.compare({name: given[name] for name in ("fair", "floor")}, resamples=50)
    assert alone.cells.to_pylist() == found.cells.to_pylist()[1:]
    assert alone.pairs.to_pylist() == found.pairs.to_pylist()[2:]


def test_the_seed_of_the_draws_counts():
    given = systems(5)
    first, second = (comparison.compare(given, resamples=50, seed=seed).cells.to_pylist()[0] for seed in (0, 1))
    assert first["mean"] == second["mean"]
    assert (first["low"], first["high"]) != (second["low"], second["high"])


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (lambda rows: rows[:-3], 3),
        (lambda rows: [rows[0] | {"label": "anomaly"}, *rows[1:]], 1),
        (lambda rows: [*(row | {"domain": "target"} for row in rows[:6]), *rows[6:]], 3),
        (lambda rows: [rows[0] | {"clip_id": "d/elsewhere.wav"}, *rows[1:]], 2),
        (lambda rows: [*rows, rows[0]], 1),
    ],
)
def test_other_clips_cannot_be_compared(change, differing):
    rows = clips()
    other = change(rows)
    given = {
        "mine": {3: scored(rows, range(len(rows)))},
        "theirs": {None: scored(other, range(len(other)))},
    }
    message = rf"^mine with seed 3 and theirs differ in {differing} clip\(s\) or their labels; only scores of the same"
    with pytest.raises(UserError, match=message):
        comparison.compare(given, resamples=5)


def test_nothing_cannot_be_compared():
    with pytest.raises(UserError, match="^no scores to compare$"):
        comparison.compare({})
    with pytest.raises(UserError, match="^no scores to compare of mine$"):
        comparison.compare({"mine": {}})


def test_without_an_official_score_there_is_no_comparison():
    rows = [row for row in clips() if row["domain"] == "source" or row["label"] == "anomaly"]
    with pytest.raises(UserError, match="fan section 00 has no auc_target"):
        comparison.compare({"mine": {0: scored(rows, range(len(rows)))}}, resamples=5)


def test_clips_without_domains_are_compared_too():
    rows = [row | {"domain": None} for row in clips()]
    table = scored(rows, np.random.default_rng(8).normal(size=len(rows)))
    (row,) = comparison.compare({"mine": {0: table}}, resamples=20).cells.to_pylist()
    assert row["low"] < row["mean"] < row["high"]


def test_the_protocol_of_another_year_counts():
    given = {
        name: {0: table} for name, (table, *_) in ((name, [*seeds.values()]) for name, seeds in systems(9).items())
    }
    (row, *_) = comparison.compare(given, resamples=30, protocol="dcase2021").pairs.to_pylist()
    good, fair = (metrics.evaluate(given[name][0], "any", protocol="dcase2021") for name in ("good", "fair"))
    assert row["difference"] == pytest.approx(metrics.official_score(good) - metrics.official_score(fair), abs=1e-12)
    aligned = [given[name][0].sort_by("clip_id") for name in ("good", "fair")]
    counts = bootstrap.resample(aligned[0], 30, np.random.default_rng(0))
    drawn = np.subtract(*(bootstrap.resampled_scores(table, counts, "dcase2021") for table in aligned))
    assert (row["low"], row["high"]) == pytest.approx(bootstrap.bias_corrected(drawn, row["difference"]), abs=1e-12)
    (auto, *_) = comparison.compare(given, resamples=30).pairs.to_pylist()
    assert auto["difference"] != row["difference"]
    with pytest.raises(UserError, match="protocol dcase2020 on clips with domains"):
        comparison.compare(given, resamples=30, protocol="dcase2020")
