"""A candidate beside what is current: what speaks against it, and what does not."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import comparison, promotion

COLUMNS = ("clip_id", "machine_type", "section", "domain", "label", "score", "decision")
SCHEMA = pa.schema([tables.SCORES.field(name) for name in COLUMNS])


def scored(gain=2.0, alarms=0.05, seed=0, labels=tables.LABELS, per_machine=160):
    """Two machines' clips, anomalies so much higher; a share of the healthy clips calls an alarm."""
    rng, rows = np.random.default_rng(seed), []
    hard = np.random.default_rng(99).normal(size=2 * per_machine)  # for every system
    for machine in ("fan", "valve"):
        for number in range(per_machine):
            label = labels[number // 2 % len(labels)]
            place = number + per_machine * (machine == "valve")
            score = hard[place] + 0.2 * rng.normal() + gain * (label == "anomaly")
            limit = stats.norm.isf(alarms)
            rows.append(
                {"clip_id": f"{machine}/{number:03d}", "machine_type": machine, "section": "00", "label": label}
                | {"domain": tables.DOMAINS[number % 2], "score": score, "decision": int(score > limit)}
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def test_one_that_is_as_good_may_take_the_place():
    found = promotion.compare(scored(seed=1), scored(seed=2))
    assert found.worse == []
    assert found.clips == 320
    assert (found.lost, found.undecided, found.why_no_score) == (0, 0, None)
    assert found.difference.low < 0 < found.difference.high
    assert promotion.compare(scored(gain=3, seed=1), scored(seed=2)).worse == []
    assert set(found.false_alarms) == {"all", "source", "target"}
    assert found.false_alarms["all"].clips == 160
    told = found.told()
    assert told["candidate"]["value"] == found.candidate.value
    assert told["false_alarms"]["all"]["current"] == found.false_alarms["all"].current


def test_figures_are_those_of_the_comparison_of_systems():
    one, other = scored(gain=1.5, seed=1), scored(seed=2)
    found = promotion.compare(one, other)
    expected = comparison.compare({"candidate": {None: one}, "current": {None: other}})
    (pair,) = expected.pairs.to_pylist()
    assert found.difference == promotion.Figure(pair["difference"], pair["low"], pair["high"])
    assert [found.candidate.value, found.current.value] == expected.cells["mean"].to_pylist()
    assert found.worse == [f"its score is lower: {found.difference}"]
    assert str(promotion.Figure(-0.031, -0.05, -0.012)) == "-3.10 [-5.00, -1.20]"


def test_more_false_alarms_speak_against_it_whatever_its_score():
    found = promotion.compare(scored(gain=3, alarms=0.2, seed=1), scored(alarms=0.05, seed=2))
    alarms = found.false_alarms["all"]
    assert found.worse == [f"{alarms.candidate} false alarms among 160 healthy clips, not {alarms.current}"]
    rows = zip(scored(gain=3, alarms=0.2, seed=1).to_pylist(), scored(alarms=0.05, seed=2).to_pylist(), strict=True)
    pairs = [(mine["decision"], yours["decision"]) for mine, yours in rows if mine["label"] == "normal"]
    more, fewer = pairs.count((1, 0)), pairs.count((0, 1))
    assert alarms.chance == pytest.approx(stats.binom.sf(more - 1, more + fewer, 0.5))
    assert (alarms.candidate, alarms.current) == (sum(a for a, _ in pairs), sum(b for _, b in pairs))
    assert promotion.compare(scored(alarms=0.05, seed=2), scored(gain=1.9, alarms=0.2, seed=1)).worse == []


def test_what_it_cannot_score_or_decide_on_speaks_against_it():
    whole = scored(seed=1)
    fans = whole.filter(np.array([name == "fan" for name in whole["machine_type"].to_pylist()]))
    assert promotion.compare(fans, whole).worse == ["it does not score 160 clip(s) of valve 00"]
    assert promotion.compare(whole, fans).worse == []
    silent = whole.set_column(whole.column_names.index("decision"), "decision", pa.nulls(320, pa.int8()))
    found = promotion.compare(silent, whole)
    assert found.worse == ["it does not decide on 320 clip(s)"]
    assert found.false_alarms == {}
    assert promotion.compare(whole, silent).worse == []


def test_healthy_clips_alone_compare_false_alarms():
    normal = ("normal",)
    found = promotion.compare(scored(alarms=0.3, labels=normal, seed=1), scored(labels=normal, seed=2))
    assert found.why_no_score == "no machine has normal and anomalous clips"
    assert (found.candidate, str(found.difference)) == (promotion.Figure(), "-")
    assert [why.split(" ", 1)[1] for why in found.worse] == [
        f"false alarms among 320 healthy clips, not {found.false_alarms['all'].current}"
    ]


def test_only_machines_with_both_labels_have_a_score():
    one, other = scored(gain=1.5, seed=1), scored(seed=2)
    fans = [table.slice(0, 160) for table in (one, other)]
    healthy = [scored(labels=("normal",), seed=seed).slice(160) for seed in (1, 2)]
    mixed = [pa.concat_tables(pair) for pair in zip(fans, healthy, strict=True)]
    found = promotion.compare(*mixed)
    assert (found.clips, found.difference) == (320, promotion.compare(*fans).difference)


def test_without_labels_there_is_nothing_to_compare():
    unknown = scored(labels=(None,))
    with pytest.raises(UserError, match=r"no clip with a label is scored by both: nothing to compare; allowed: CLIPS"):
        promotion.compare(unknown, unknown)
    half = pa.concat_tables([scored(seed=1).slice(0, 160), unknown.slice(160)])
    assert promotion.compare(half, half).clips == 160


def test_order_of_rows_does_not_matter():
    one, other = scored(gain=1.5, seed=1), scored(seed=2)
    mixed = other.take(pa.array(np.random.default_rng(0).permutation(320)))
    assert promotion.compare(one, mixed) == promotion.compare(one, other)


def test_an_equal_candidate_is_seldom_called_worse():
    called = [
        bool(promotion.compare(scored(seed=2 * n, per_machine=80), scored(seed=2 * n + 1, per_machine=80)).worse)
        for n in range(10)
    ]
    assert sum(called) <= 2
