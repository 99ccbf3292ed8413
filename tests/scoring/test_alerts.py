"""Alerts from their first night to somebody's verdict."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from plants import Plant

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.fleet_tables import ALERTS, DECISIONS, NIGHTS
from ray_asd.scoring import alerts, nights
from ray_asd.scoring.alerts import Alert, Change, Persistence

NO_CALIBRATION = tables.CALIBRATION.empty_table()
START = date(2026, 1, 1)
FAN = ("fan", "00", "7")


def day(number):
    return START + timedelta(days=number)


def by(number, who="me", note=""):
    return Change(who, datetime(2026, 1, 1, 9, tzinfo=UTC) + timedelta(days=number), note)


def decided(number, **alarms):
    """DECISIONS of a night: by machine its statistic; None where it was not judged, an alarm from 3 on."""
    rows = [
        {"machine_type": machine, "section": "00", "machine_id": "7", "night": day(number), "clips": 8}
        | {"statistic": value, "p_value": None if value is None else 10**-value, "could_alarm": True}
        | {"alarm": None if value is None else value >= 3}
        for machine, value in alarms.items()
    ]
    return pa.Table.from_pylist(rows, DECISIONS)


def followed(values, persistence=None, before=(), first=0, heard=()):
    """Alerts after so many nights of one machine, by the statistic of each; None where it was not judged.

    ``heard`` says what was in each night.
    """
    persistence = persistence or Persistence()
    tables = [decided(first + number, fan=value) for number, value in enumerate(values)]
    found = list(before)
    for number in range(len(tables)):
        why = {FAN: heard[number]} if number < len(heard) and heard[number] else None
        found = alerts.follow(found, tables[: number + 1], persistence, why)
    return found


def test_an_alert_is_one_event_however_many_nights():
    (alert,) = followed([0, 4, 5, 0, 3.5, 1])
    assert (alert.machine, alert.state, alert.verdict) == (FAN, "open", None)
    assert (alert.first_seen, alert.last_seen, alert.count) == (day(1), day(4), 3)
    assert (alert.severity, alert.p_value) == (5, 1e-5)
    assert alert.alert_id.startswith("20260102-")


@pytest.mark.parametrize(
    ("persistence", "values", "begun"),
    [
        (Persistence(), [4], None),
        (Persistence(), [4, 0, 0, 4], None),
        (Persistence(), [4, 0, 4], 0),
        (Persistence(), [4, None, None, 4], 0),  # of the nights on which it was judged
        (Persistence(1, 1), [0, 4], 1),
        (Persistence(3, 5), [4, 0, 4, 0, 4], 0),
        (Persistence(3, 5), [4, 0, 4, 0, 0, 4], None),
        (Persistence(2, 2), [4, 0, 4, 4], 2),
    ],
)
def test_m_of_n_nights_begin_it(persistence, values, begun):
    found = followed(values, persistence)
    assert [alert.first_seen for alert in found] == ([] if begun is None else [day(begun)])


def test_following_a_night_again_changes_nothing():
    tables = [decided(number, fan=4, pump=number) for number in range(5)]
    once = alerts.follow(alerts.follow([], tables[:2]), tables[:3])
    assert alerts.follow(once, tables[:3]) == once
    assert {alert.alert_id for alert in once} == {alert.alert_id for alert in alerts.follow([], tables[:2])}
    resolved = [alerts.resolve(once[0], "real", by(3))]
    assert alerts.follow(resolved, tables[:3]) == resolved, "somebody was there between the two"


def test_late_recordings_take_a_night_back_or_add_one():
    (alert,) = followed([0, 4, 4, 4])
    changed = alerts.follow([alert], [decided(2, fan=0)])
    assert changed[0].nights == (day(1), day(3))
    assert alerts.follow(changed, [decided(2, fan=6)])[0].nights == (day(1), day(2), day(3))
    (begun,) = followed([4], Persistence(1, 1))
    assert alerts.follow([begun], [decided(0, fan=0)]) == [begun], "what was told is not untold"


def test_why_is_that_of_the_worst_night_listened_to():
    tone, hiss = ("a tone near 3.1 kHz", "a.wav"), ("a hiss", "b.wav")

    def why(*nights):
        (alert,) = followed([one[0] for one in nights], heard=[one[1] for one in nights])
        return alert.why, alert.clip_id

    assert why((4, hiss), (4, tone)) == tone, "when it was begun"
    assert why((4, None), (4, None), (5, tone)) == tone
    assert why((4, None), (4, tone), (3.5, hiss)) == tone
    assert why((4, None), (4, tone), (5, hiss)) == hiss
    assert why((4, None), (4, tone), (5, None)) == tone
    assert why((5, None), (4, None), (3.5, hiss)) == hiss, "better than nothing"
    assert why((4, None), (4, (None, "a.wav"))) == (None, "a.wav")
    (alert,) = followed([4, 5, 4], heard=[None, tone, hiss])
    again = alerts.follow([alert], [decided(1, fan=5), decided(2, fan=4)], why={FAN: hiss})
    assert again == [alert]


def test_what_people_do_with_it():
    (alert,) = followed([4, 4])
    seen = alerts.acknowledge(alert, by(2, "ann", "on my way"))
    assert (seen.state, seen.changed) == ("acknowledged", by(2, "ann", "on my way"))
    (going_on,) = followed([5], before=[seen], first=2)
    assert (going_on.state, going_on.count, going_on.severity) == ("acknowledged", 3, 5)
    quiet = alerts.snooze(going_on, day(5), by(3))
    for number, state in ((3, "snoozed"), (5, "snoozed"), (6, "open")):
        (now,) = alerts.follow([quiet], [decided(number, fan=4, pump=0)])
        assert (now.state, now.count) == (state, 4)
    (heard_again,) = alerts.follow([quiet], [decided(6, pump=0)])
    assert (heard_again.state, heard_again.snoozed_until, heard_again.count) == ("open", None, 3)
    over = alerts.resolve(quiet, "maintenance", by(4, note="belt"))
    assert (over.state, over.verdict, over.snoozed_until) == ("resolved", "maintenance", None)
    assert alerts.resolve(over, "real", by(5)).verdict == "real", "somebody looked closer"


def test_after_its_end_a_new_one_begins_with_new_alarms():
    (alert,) = followed([4, 4])
    over = alerts.resolve(alert, "real", by(1))
    tables = [decided(number, fan=4) for number in range(4)]
    assert alerts.follow([over], tables[:3]) == [over], "the alarms before are no part of it"
    found = alerts.follow([over], tables)
    assert [(one.state, one.first_seen) for one in found] == [("open", day(2)), ("resolved", day(0))]
    assert len({one.alert_id for one in found}) == 2


def test_what_cannot_be_done():
    (alert,) = followed([4, 4])
    over = alerts.resolve(alert, "false", by(2))
    refusal = rf"^alert {alert.alert_id} is resolved \(false\); allowed: alerts that are open, acknowledged, snoozed$"
    for act in (lambda: alerts.acknowledge(over, by(3)), lambda: alerts.snooze(over, day(9), by(3))):
        with pytest.raises(UserError, match=refusal):
            act()
    with pytest.raises(UserError, match=r"^unknown verdict 'broken'; allowed: real, false, maintenance$"):
        alerts.resolve(alert, "broken", by(2))
    with pytest.raises(UserError, match=r"^snooze until 2026-01-01: that is over; allowed: 2026-01-03 or later$"):
        alerts.snooze(alert, day(0), by(2))
    for m, n in ((0, 3), (4, 3)):
        with pytest.raises(UserError, match=rf"^{m} of 3 nights; allowed: m of n with 1 <= m <= n, such as 2 of 3$"):
            Persistence(m, n)


def test_order_of_severity():
    def one(name, state, severity, count=1, first=0):
        nights = tuple(day(first + number) for number in range(count))
        verdict = "real" if state == "resolved" else None
        return Alert(name, FAN, nights, severity, 0.01, state, verdict)

    in_order = [
        one("a", "open", 5),
        one("b", "open", 4, count=3),
        one("c", "open", 4, count=1, first=1),
        one("d", "open", 4, count=1, first=2),
        one("e", "acknowledged", 9),
        one("f", "snoozed", 9),
        one("g", "resolved", 99),
    ]
    assert alerts.in_order(in_order[::-1]) == in_order


def test_which_nights_are_healthy():
    rows = [
        {"machine_type": machine, "section": "00", "machine_id": "7", "domain": None, "model_digest": "d"}
        | {"night": day(number), "clips": 8, "mean": 0.0, "deviations": 1.0}
        for machine in ("fan", "pump")
        for number in range(8)
    ]
    past = pa.Table.from_pylist(rows, NIGHTS)
    (alert,) = followed([0, 4, 4, 0, 4])

    def left_out(*given, decisions=()):
        kept = {(row["machine_type"], row["night"]) for row in alerts.healthy(past, given, decisions).to_pylist()}
        assert all(("pump", day(number)) in kept for number in range(8))
        return [number for number in range(8) if ("fan", day(number)) not in kept]

    assert left_out() == []
    assert left_out(alert) == [1, 2, 3, 4]
    assert left_out(alerts.resolve(alert, "real", by(6))) == [1, 2, 3, 4, 5, 6], "it was mended only then"
    assert left_out(alerts.resolve(alert, "false", by(6))) == []
    suspect = [decided(6, fan=2, pump=1), decided(7, fan=1.9, pump=None)]
    assert left_out(decisions=suspect) == [6], "which may be the first night of an alert"
    assert left_out(alert, decisions=suspect) == [1, 2, 3, 4, 6]


def test_as_a_table_and_back():
    first, second = (alert for machine in ("fan", "pump") for alert in alerts.follow([], [
        decided(0, **{machine: 4}), decided(1, **{machine: 5})
    ]))  # fmt: skip
    first = replace(first, why="a tone near 3.1 kHz", clip_id="plant/fan/a.wav")
    given = [first, alerts.snooze(second, day(9), by(3, "ann", "known")), alerts.resolve(first, "false", by(4))]
    table = alerts.to_table(given)
    assert table.schema == ALERTS
    assert table["count"].to_pylist() == [2, 2, 2]
    assert alerts.from_table(table) == given
    assert alerts.from_table(ALERTS.empty_table()) == []


def test_nights_on_which_nothing_was_judged():
    (alert,) = followed([4, 4])
    assert alerts.follow([alert], []) == [alert]
    assert alerts.follow([alert], [DECISIONS.empty_table()]) == [alert]
    assert alerts.follow([alert], [decided(2, fan=None)]) == [alert]


def test_a_fault_does_not_become_its_own_standard():
    """It grows over three nights, and is told by the fourth: the nights before its alert are not what is healthy."""
    plant = Plant(machines=100, seed=10)
    past, decisions, found = plant.past(25), [], []
    for number, worse in enumerate((1.2, 2.4, 3.5, 3.5)):
        tonight = plant.tonight(worse=worse, faulty=3)
        kept = alerts.healthy(past, found, decisions[-3:])
        decisions.append(nights.decide(tonight, day(25 + number), kept, NO_CALIBRATION))
        found = alerts.follow(found, decisions)
        past = pa.concat_tables([past, nights.summary(tonight, day(25 + number))])
    told = [alert.machine[1] for alert in found]
    assert {"000", "001", "002"} <= set(told)
    assert len(told) <= 4
