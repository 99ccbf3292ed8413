"""Alerts of a fleet in its ledger: nights and people that change them at once, kills, and what others read."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_asd import store
from ray_asd.errors import StageError, UserError
from ray_asd.fleet_tables import ALERTS, DECISIONS
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Alert, Change, Persistence
from ray_asd.stages.fleet import alerting
from ray_asd.store import ledger

START = date(2026, 11, 1)
EACH = Persistence(1, 1)


def day(number: int) -> date:
    return START + timedelta(days=number)


def decided(number: int, **statistics: float) -> pa.Table:
    """DECISIONS of a night: machines by their statistic, which is an alarm from 3 on."""
    rows = [
        {"machine_type": machine, "section": "00", "machine_id": "7", "night": day(number), "clips": 8}
        | {"statistic": value, "p_value": 10**-value, "could_alarm": True, "alarm": value >= 3}
        for machine, value in statistics.items()
    ]
    return pa.Table.from_pylist(rows, DECISIONS)


def by(number: int, who: str = "ann") -> Change:
    return Change(who, datetime(2026, 11, 1, 9, tzinfo=UTC) + timedelta(days=number), "seen")


def entries(fleet: str) -> int:
    return ledger.newest(alerting.folder_of(fleet))


def ids(known: list[Alert]) -> list[str]:
    return [alert.alert_id for alert in known]


def test_a_night_is_followed_once(root: str) -> None:
    assert (alerting.current(root), entries(root)) == ([], 0)
    assert alerting.follow_night(root, [decided(0, fan=1)]) == []
    assert entries(root) == 0, "nothing to tell"
    nights = [decided(0, fan=4, pump=4), decided(1, fan=5, pump=1)]
    heard = {("fan", "00", "7"): ("a tone near 3.1 kHz", "plant/fan/a.wav")}
    (alert,) = alerting.follow_night(root, nights, why=heard)
    assert (alert.machine, alert.severity, alert.why, alert.clip_id) == (
        *(("fan", "00", "7"), 5, "a tone near 3.1 kHz"),
        "plant/fan/a.wav",
    )
    assert alerting.follow_night(root, nights, why=heard) == [alert] == alerting.current(root)
    assert entries(root) == 1
    state = alerting.newest(root)
    assert state is not None
    assert (state.number, state.cause) == (1, "night 2026-11-02")
    alerting.follow_night(root, [*nights, decided(2, fan=6)])
    assert [state.cause for state, _ in alerting.history(root, alert.alert_id)] == [
        "night 2026-11-02",
        "night 2026-11-03",
    ]


def test_a_person_changes_all_of_them_or_none(tmp_path) -> None:
    fleet = str(tmp_path)
    known = alerting.follow_night(fleet, [decided(0, fan=5, pump=4, valve=3)], EACH)
    first, second, third = ids(known)

    def seen(alert: Alert) -> Alert:
        return alerts.acknowledge(alert, by(1))

    (acknowledged,) = alerting.change(fleet, [second], seen, "acknowledge")
    assert (acknowledged.state, acknowledged.changed) == ("acknowledged", by(1))
    assert ids(alerting.current(fleet)) == [first, third, second], "what is open is more urgent"
    alerting.change(fleet, [first], lambda alert: alerts.resolve(alert, "real", by(1)), "resolve", "bob")
    count = entries(fleet)
    with pytest.raises(UserError, match=rf"^alert {first} is resolved \(real\)"):
        alerting.change(fleet, [third, first], seen, "acknowledge")
    near = f"{third[:-1]}x"
    with pytest.raises(UserError, match=rf"^unknown alert '{near}'; allowed: {third}, ") as refusal:
        alerting.change(fleet, [near], seen, "acknowledge")
    assert len(str(refusal.value).splitlines()) == 1
    assert entries(fleet) == count
    assert [(state.cause, state.who == "bob") for state, _ in alerting.history(fleet, first)] == [
        ("night 2026-11-01", False),
        ("resolve", True),
    ]
    with pytest.raises(UserError, match=r"^unknown alert 'any'; allowed: none: there are no alerts$"):
        alerting.change(str(tmp_path / "another"), ["any"], seen, "acknowledge")


def test_nights_and_people_at_once_lose_nothing(root: str) -> None:
    """Two machines' nights, and somebody who acknowledges alerts, all in one ledger."""
    alerting.follow_night(root, [decided(0, gearbox=9)], EACH)
    (known,) = alerting.current(root)

    def nights(machine: str) -> None:
        for number in range(1, 5):
            alerting.follow_night(root, [decided(number, **{machine: 3.0 + number})], EACH)

    def people() -> None:
        for number in range(4):
            action = alerts.acknowledge if number % 2 else lambda alert, change: alerts.snooze(alert, day(99), change)
            alerting.change(root, [known.alert_id], lambda alert, n=number, act=action: act(alert, by(n)), "change")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(nights, "fan"), pool.submit(nights, "pump"), pool.submit(people)]:
            done.result()
    found = {alert.machine[0]: alert for alert in alerting.current(root)}
    assert entries(root) == 1 + 4 + 4 + 4
    assert found["gearbox"].changed == by(3)
    for machine in ("fan", "pump"):
        assert (found[machine].count, found[machine].severity) == (4, 7)
    assert pq.read_table(pa.BufferReader(store.read(store.join(root, alerting.TABLE)))) == alerts.to_table(
        alerting.current(root)
    ), "who came last told what there is"


def test_what_others_read(root: str) -> None:
    alerting.follow_night(root, [decided(0, fan=5, pump=4)], EACH)
    first = alerting.current(root)[0]
    alerting.change(root, [first.alert_id], lambda alert: alerts.snooze(alert, day(9), by(1)), "snooze")
    table = pq.read_table(pa.BufferReader(store.read(store.join(root, alerting.TABLE))))
    assert table.schema.equals(ALERTS)
    assert alerts.from_table(table) == alerting.current(root)
    lines = [json.loads(line) for line in store.read(store.join(root, alerting.LINES)).splitlines()]
    assert [set(line) for line in lines] == [set(ALERTS.names)] * 2
    assert [(line["machine_type"], line["state"], line["snoozed_until"]) for line in lines] == [
        ("pump", "open", None),
        ("fan", "snoozed", "2026-11-10"),
    ]
    assert (lines[1]["nights"], lines[1]["changed_at"]) == (["2026-11-01"], "2026-11-02T09:00:00+00:00")


def test_killed_after_the_entry_the_next_run_tells_it(tmp_path) -> None:
    fleet = str(tmp_path)
    night = [decided(0, fan=5)]
    alerting.follow_night(fleet, night, EACH)
    for name in (alerting.TABLE, alerting.LINES):
        store.remove(store.join(fleet, name))
    alerting.follow_night(fleet, night, EACH)
    assert entries(fleet) == 1
    assert store.exists(store.join(fleet, alerting.TABLE))
    assert store.exists(store.join(fleet, alerting.LINES))


def test_what_was_resolved_a_year_ago_is_left_out_and_stays_over(tmp_path) -> None:
    fleet = str(tmp_path)
    (old,) = alerting.follow_night(fleet, [decided(0, fan=5)], EACH)
    alerting.change(fleet, [old.alert_id], lambda alert: alerts.resolve(alert, "real", by(1)), "resolve")
    found = alerting.follow_night(fleet, [decided(366, pump=5)], EACH)
    assert [alert.machine[0] for alert in found] == ["pump", "fan"]
    found = alerting.follow_night(fleet, [decided(367, pump=5)], EACH)
    assert [alert.machine[0] for alert in found] == ["pump"]
    assert ledger.entry(alerting.folder_of(fleet), 3)["alerts"][1]["alert_id"] == old.alert_id
    count = entries(fleet)
    for number in (0, 1):
        assert alerting.follow_night(fleet, [decided(number, fan=5)], EACH) == found, "a night that is done with"
    assert entries(fleet) == count
    found = alerting.follow_night(fleet, [decided(2, fan=5)], EACH)
    assert [alert.machine[0] for alert in found] == ["pump", "fan"], "later ones are not"


def test_a_damaged_entry_is_named(tmp_path) -> None:
    fleet = str(tmp_path)
    alerting.follow_night(fleet, [decided(0, fan=5)], EACH)
    place = ledger.path(alerting.folder_of(fleet), 1)
    store.write(place, store.read(place).replace(b'"open"', b'"opened"'))
    with pytest.raises(StageError, match=rf"^{place} is no entry of this format: alerts: 0: state: "):
        alerting.current(fleet)
