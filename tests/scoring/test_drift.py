"""What changes beside a machine's condition: found where it was made to, and told seldom where nothing was."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
import scipy

from ray_asd import reasons, tables
from ray_asd.fleet_tables import DECISIONS, DRIFT, NIGHTS, SOUNDS
from ray_asd.scoring import figures
from ray_asd.scoring.drift import drift, held_back

START = date(2026, 9, 1)
CLIPS = 8
UNITS = 200


def day(number):
    return START + timedelta(days=number)


class Fleet:
    """Healthy machines by night: what nights have in common, and what the weather does to all of them."""

    def __init__(self, machines=UNITS, nights=31, seed=0):
        self.rng = np.random.default_rng(seed)
        shape = (machines, nights)
        self.names = [f"{number:03d}" for number in range(machines)]
        weather = self.rng.normal(size=nights)
        usual = self.rng.normal(-30, 5, machines)[:, None]
        self.level = usual + self.rng.normal(0, 1.2, shape) + 0.4 * weather
        self.seconds = np.full(shape, 10.0) + (np.arange(machines) % 3 == 0)[:, None] * self.rng.normal(0, 0.3, shape)
        loud = (np.arange(machines) % 4 == 0)[:, None]
        self.clipped = np.where(loud, 10 ** self.rng.normal(-4.5, 0.4, shape), 0)
        self.unscored = self.rng.binomial(CLIPS, 0.01, shape)
        self.repeated = np.zeros(shape, int)
        self.rate = np.full(shape, 16_000)
        night = self.rng.normal(size=shape) + 0.3 * weather
        clips = self.rng.normal(size=(*shape, CLIPS))
        self.scores = np.sqrt(0.5) * (night[..., None] + clips)  # in standard deviations of a clip
        own = np.random.default_rng([seed, 2]).normal(size=(machines, nights, 1 + CLIPS))
        self.lies = np.sqrt(0.5) * (own[..., :1] + own[..., 1:])  # recordings among the healthy ones
        self.contents = np.array(
            [[f"{machine} {night}" for night in range(nights)] for machine in range(machines)], object
        )
        self.alarming = set()

    def machine(self, number):
        return ("fan", self.names[number], None)

    def sounds(self):
        return self._table(
            SOUNDS,
            *[("clips", np.full(self.level.shape, CLIPS)), ("unscored", self.unscored), ("repeated", self.repeated)],
            *[("sample_rate", self.rate), ("seconds", self.seconds), ("level", self.level), ("clipped", self.clipped)],
            ("contents", self.contents),
        )

    def nights(self):
        mean, deviations = self.scores.mean(axis=2), self.scores.var(axis=2) * CLIPS
        scale = np.linspace(0.5, 5, len(self.names))[:, None]
        return self._table(
            NIGHTS,
            *[("clips", np.full(self.level.shape, CLIPS)), ("mean", 7 + scale * mean)],
            *[("deviations", scale**2 * deviations), ("model_digest", np.full(self.level.shape, "d"))],
            nearest=np.floor(40 * scipy.stats.norm.cdf(self.lies)).astype(int).astype(str).reshape(-1, CLIPS).tolist(),
        )

    def calibration(self, clips=40):
        scale = np.linspace(0.5, 5, len(self.names))
        values = 7 + scale[:, None] * self.rng.normal(size=(len(self.names), clips))
        rows = [
            {"machine_type": "fan", "section": name, "clip_id": f"{name}/{number}", "content_hash": str(number)}
            | {"domain": "source", "score": float(score), "source": "calibration"}
            for name, own in zip(self.names, values, strict=True)
            for number, score in enumerate(own)
        ]
        return pa.Table.from_pylist(rows, tables.CALIBRATION)

    def _table(self, schema, *columns, **lists):
        machines, nights = self.level.shape
        found = {"machine_type": ["fan"] * machines * nights, "section": np.repeat(self.names, nights)}
        found["night"] = [day(number) for number in range(nights)] * machines
        found |= lists | {name: np.asarray(values).ravel() for name, values in columns}
        found |= {name: pa.nulls(machines * nights) for name in schema.names if name not in found}
        return pa.table({name: found[name] for name in schema.names}).cast(schema)

    def told(self, number=None, calibration=None, **options):
        """DRIFT rows of a night, by default the last one."""
        number = self.level.shape[1] - 1 if number is None else number
        sounds, tonight = self.sounds(), pa.scalar(day(number), pa.date32())
        is_tonight = pa.compute.equal(sounds["night"], tonight)
        before = sounds.filter(pa.compute.invert(is_tonight))
        known = self.calibration() if calibration is None else calibration
        found = drift(sounds.filter(is_tonight), before, self.nights(), known, day(number), self.alarming, **options)
        assert found.schema == DRIFT
        assert set(found["what"].to_pylist()) <= set(reasons.DRIFTED)
        return found.to_pylist()


def of(found, fleet, number):
    """What is told of one machine, by what."""
    own = {row["what"]: row for row in found if row["section"] == fleet.names[number]}
    assert len(own) == sum(row["section"] == fleet.names[number] for row in found)
    return own


CHANGED = 5  # the machine that something happens to


def changed(**options):
    """A fleet one of whose machines differs on the last four nights, and what is told of it: what, before, now."""
    fleet = Fleet(**options.pop("fleet", {}))
    last = np.s_[CHANGED, -4:]
    for name, change in options.items():
        values = getattr(fleet, name)
        values[last] = change(values[last])
    found = fleet.told()
    assert {row["section"] for row in found} <= {fleet.names[CHANGED]}
    return of(found, fleet, CHANGED)


def test_healthy_nights_are_seldom_told_of():
    notices, nights = 0, 0
    for seed in range(3):
        fleet = Fleet(seed=seed, nights=41)
        calibration = fleet.calibration()
        for number in (10, 20, 30, 40):
            found = fleet.told(number, calibration)
            assert all(row["machine_type"] for row in found), "no notice of the fleet"
            notices, nights = notices + len(found), nights + UNITS
    assert notices / nights < 0.002


@pytest.mark.parametrize("step", [6, -6])
def test_another_level(step):
    (row,) = changed(level=lambda level: level + step).values()
    assert row["what"] == "level"
    assert row["now"] - row["before"] == pytest.approx(step, abs=2)
    assert row["p_value"] < 1e-4
    assert row["detail"] == f"level {row['now']:.1f} dB in its last 3 nights, {row['before']:.1f} dB in 21 earlier ones"
    assert row["advice"].startswith("check the microphone")


def test_small_changes_and_single_nights_are_none():
    assert changed(level=lambda level: level + 1.5) == {}
    fleet = Fleet()
    fleet.level[CHANGED, -2] += 9
    assert fleet.told() == [], "it is over"
    fleet = Fleet(nights=9)
    fleet.level[CHANGED, -3:] += 20
    assert fleet.told() == [], "six nights do not say how far nights lie apart"


def test_other_settings_of_a_recorder():
    (row,) = changed(rate=lambda rate: rate + 32_000).values()
    assert (row["what"], row["before"], row["now"], row["p_value"]) == ("sample_rate", 16_000, 48_000, None)
    assert row["detail"] == "48000 Hz, 16000 Hz before"
    (row,) = changed(seconds=lambda seconds: seconds / 2).values()
    assert (row["what"], row["before"], row["now"]) == ("length", pytest.approx(10, abs=0.5), pytest.approx(5, abs=0.5))
    assert row["detail"].startswith("length ")
    assert " s in its last 3 nights, " in row["detail"]
    (row,) = changed(clipped=lambda clipped: clipped + 0.02).values()
    assert (row["what"], row["before"], row["now"]) == ("clipped", 0, pytest.approx(0.02))
    assert changed(clipped=lambda clipped: 0 * clipped) == {}, "less is no fault"
    assert set(changed(rate=lambda rate: rate + 1, level=lambda level: level - 8)) == {"sample_rate", "level"}


def test_recordings_that_are_lost_or_repeated():
    (row,) = changed(unscored=lambda unscored: unscored + 4).values()
    assert (row["what"], row["now"]) == ("unscored", pytest.approx(0.5, abs=0.1))
    (row,) = changed(repeated=lambda repeated: repeated + CLIPS - 1).values()
    assert row["what"] == "repeated"
    assert row["detail"] == "88% repeated, 0% repeated before"
    assert changed(repeated=lambda repeated: repeated + 1) == {}
    fleet = Fleet()
    shares = {day(number): 0.02 for number in range(30)} | {day(30): 0.3}
    (row,) = fleet.told(rejected=shares)
    assert (row["what"], row["machine_type"]) == ("rejected", None)
    assert row["detail"] == "30% of files rejected, 2% in 23 earlier nights"
    assert fleet.told(rejected={day(number): 0.02 for number in range(31)}) == []


def test_a_recorder_that_sends_the_same_night_again():
    fleet = Fleet()
    fleet.contents[CHANGED, -1] = fleet.contents[CHANGED, -3]
    (row,) = of(fleet.told(), fleet, CHANGED).values()
    assert (row["what"], row["now"]) == ("repeated", 1)
    assert row["detail"] == "100% repeated, 0% repeated before"
    fleet.contents[CHANGED, -3:] = None
    assert fleet.told() == [], "of nights that an earlier version told of nothing is known"


def test_recordings_that_lie_elsewhere_although_none_is_odd():
    fleet = Fleet()
    fleet.lies[CHANGED, -8:] = 0.3 * fleet.lies[CHANGED, -8:] + 2.5
    (row,) = of(fleet.told(), fleet, CHANGED).values()
    assert (row["what"], row["before"]) == ("embeddings", 0)
    assert row["now"] > 1
    assert row["detail"] == f"drift of embeddings (PSI) {row['now']:.2f} in its last 7 nights, 0.00 in 17 earlier ones"
    fleet.alarming = {fleet.machine(CHANGED)}
    assert fleet.told() == [], "its condition has changed, which must not be enrolled"


@pytest.mark.parametrize("step", [2.5, -2.5])
def test_scores_that_move_without_an_alarm(step):
    fleet = Fleet()
    fleet.scores[CHANGED, -8:] = 0.3 * fleet.scores[CHANGED, -8:] + step
    row = of(fleet.told(), fleet, CHANGED)["scores"]
    assert row["now"] - row["before"] == pytest.approx(step, abs=1)
    assert "enrol again" in row["advice"]
    fleet.alarming = {fleet.machine(CHANGED)}
    assert fleet.told() == [], "its condition has changed, which must not be enrolled"


def test_of_a_machine_that_alarms_its_recordings_are_told():
    fleet = Fleet()
    fleet.scores[CHANGED, -4:] += 6
    fleet.level[CHANGED, -4:] += 8
    fleet.alarming = {fleet.machine(CHANGED)}
    (row,) = of(fleet.told(), fleet, CHANGED).values()
    assert row["what"] == "level"
    assert row["detail"].endswith("; it alarms as well: it may be the machine itself")


def test_scores_that_never_were_those_of_calibration():
    fleet = Fleet()
    fleet.scores[CHANGED] += 3
    (row,) = of(fleet.told(), fleet, CHANGED).values()
    assert (row["what"], row["before"], row["now"]) == ("calibration", 0, pytest.approx(3, abs=0.7))
    assert "in its last 14 nights" in row["detail"]
    assert fleet.told(calibration=fleet.calibration(clips=10)) == [], "of few clips nothing is known"


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("level", lambda level: level - 6, "level"),
        ("rate", lambda rate: rate * 3, "sample_rate"),
        ("seconds", lambda seconds: seconds * 1.5, "length"),
        ("clipped", lambda clipped: clipped + 0.01, "clipped"),
        ("unscored", lambda unscored: unscored + 3, "unscored"),
        ("repeated", lambda repeated: repeated + 6, "repeated"),
        ("scores", lambda scores: scores + 2, "scores"),
    ],
)
def test_what_moves_most_of_the_fleet_is_one_notice(name, change, what):
    """On the first night already; a machine in which something else changed is told of by itself."""
    fleet = Fleet(machines=60)
    values = getattr(fleet, name)
    values[:55, -1] = change(values[:55, -1])
    found = fleet.told()
    assert [(row["machine_type"], row["section"], row["what"]) for row in found] == [(None, None, what)]
    assert "machines" in found[0]["detail"]
    assert "enrol again" in found[0]["advice"]
    fleet.level[CHANGED, -3:] += 20
    assert {row["what"] for row in fleet.told() if row["section"] == fleet.names[CHANGED]} == {"level"}


def test_alarms_of_a_fleet_that_moved_are_held_back_but_for_those_that_stand_out():
    fleet = Fleet(machines=60)
    fleet.scores[:, -1] += 2.5
    statistics = fleet.scores[:, -1].mean(axis=1) / 0.75
    statistics[CHANGED] += 6
    rows = [
        {"machine_type": "fan", "section": name, "night": day(30), "clips": CLIPS, "rule": "nights"}
        | {"statistic": value, "p_value": 1e-4, "could_alarm": True, "alarm": bool(value > 2)}
        for name, value in zip(fleet.names, statistics, strict=True)
    ]
    decisions = pa.Table.from_pylist(rows, DECISIONS)
    assert sum(decisions["alarm"].to_pylist()) > 50
    notices = pa.Table.from_pylist(fleet.told(), DRIFT)
    held = held_back(decisions, notices)
    assert held.schema == DECISIONS
    assert [row["section"] for row in held.to_pylist() if row["alarm"]] == [fleet.names[CHANGED]]
    assert set(held["detail"].to_pylist()) == {None, "no alarm: the scores of the whole fleet have moved (DRIFT)"}
    assert held_back(decisions, notices.filter(pa.compute.equal(notices["what"], "level"))) == decisions


def test_a_change_is_told_for_a_week_by_what_was_before_it():
    fleet = Fleet(nights=41)
    fleet.level[CHANGED, 26:] += 6
    calibration = fleet.calibration()
    told = [number for number in range(24, 41) if fleet.told(number, calibration)]
    assert set(told) <= set(range(26, 40))
    assert len(set(told) & set(range(28, 36))) >= 7


def test_nothing_is_known_at_first():
    fleet = Fleet(machines=3, nights=1)
    assert fleet.told() == []
    nothing = drift(SOUNDS.empty_table(), SOUNDS.empty_table(), NIGHTS.empty_table(), fleet.calibration(), day(0))
    assert len(nothing) == 0


def test_units_that_have_no_names_and_domains_that_have_few_clips():
    fleet = Fleet(machines=2)
    nights = fleet.nights()
    place = nights.column_names.index("domain")
    nights = nights.set_column(place, NIGHTS.field("domain"), pa.array(["target", None] * 31, pa.string()))
    fleet.level[1, -3:] += 7
    sounds = fleet.sounds()
    is_tonight = pa.compute.equal(sounds["night"], pa.scalar(day(30), pa.date32()))
    before = sounds.filter(pa.compute.invert(is_tonight))
    found = drift(sounds.filter(is_tonight), before, nights, fleet.calibration(), day(30))
    assert found["section"].to_pylist() == ["001"]


def test_what_the_recordings_of_a_night_are_like():
    clips = [
        {"clip_id": f"{unit}/{number}", "machine_type": "fan", "section": "00", "machine_id": unit}
        | {"content_hash": content, "sample_rate": rate, "num_samples": samples, "level": level, "clipped": clipped}
        for unit, number, content, rate, samples, level, clipped in [
            ("a", 1, "x", 16_000, 160_000, -20.0, 0.0),
            ("a", 2, "x", 16_000, 160_000, -20.0, 0.0),
            ("a", 3, "y", 48_000, 48_000, -26.0, 0.3),
            (None, 1, "x", 8_000, 8_000, None, None),
        ]
    ]
    names = [tables.CLIPS.field(name) for name in clips[0]]
    unscored = pa.Table.from_pylist([{"clip_id": "a/3"}], pa.schema([tables.UNSCORED.field("clip_id")]))
    table = pa.Table.from_pylist(clips, pa.schema(names))
    found = figures.sounds(table, unscored, day(0))

    def contents(*hashes):
        own = table.filter(pa.compute.is_in(table["content_hash"], pa.array(hashes))).slice(0, len(hashes) + 1)
        return figures.sounds(own, unscored, day(1))["contents"][0].as_py()

    assert found.schema == SOUNDS
    same = {"machine_type": "fan", "section": "00", "night": day(0)}
    first = same | {"machine_id": "a", "clips": 3, "unscored": 1, "repeated": 1, "sample_rate": 16_000}
    other = same | {"machine_id": None, "clips": 1, "unscored": 0, "repeated": 0, "sample_rate": 8_000}
    assert found.to_pylist() == [
        first | {"seconds": 10.0, "level": -20.0, "clipped": pytest.approx(0.1), "contents": contents("x", "y")},
        other | {"seconds": 1.0, "level": None, "clipped": None, "contents": contents("x")},
    ]
    older = pa.Table.from_pylist(clips, pa.schema(names[:-2]))
    assert figures.sounds(older, unscored, day(0))["level"].to_pylist() == [None, None]
    assert figures.sounds(older.slice(0, 0), unscored, day(0)) == SOUNDS.empty_table()
