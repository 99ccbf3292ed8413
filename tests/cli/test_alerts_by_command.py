"""Alerts by command: listed, shown, acknowledged, snoozed and resolved, and what cannot be done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commands import run
from ray_asd import store
from ray_asd.stages.fleet import alerting, registry
from stages.fleet.test_alerting import EACH, decided

LATER = (datetime.now(UTC) + timedelta(days=9)).date()


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """Three machines of which the valve is worst; somebody listened to it."""
    heard = {("valve", "00", "7"): ("a tone near 3.1 kHz, 12 dB above its nearest normals", "plant/valve/a.wav")}
    alerting.follow_night(str(tmp_path), [decided(0, fan=4, pump=5, valve=6)], EACH, heard)
    return str(tmp_path)


def ids(fleet: str) -> list[str]:
    return [alert.alert_id for alert in alerting.current(fleet)]


def test_a_morning(fleet: str) -> None:
    valve, pump, fan = ids(fleet)
    listed = run("alerts", fleet)
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == [valve, pump, fan]
    why = ": a tone near 3.1 kHz, 12 dB above its nearest normals"
    assert lines[0] == f"{valve}  open  valve 00 7  severity 6.0, 1 night from 2026-11-01 to 2026-11-01{why}"
    assert lines[3:] == ["counts: open 3"]

    seen = run("alerts", fleet, "ack", valve, pump, "--note", "on my way", "--by", "ann")
    assert seen.code == 0
    assert [line.split()[:2] for line in seen.err.splitlines()] == [[valve, "acknowledged"], [pump, "acknowledged"]]
    assert run("alerts", fleet, "snooze", fan, "--until", str(LATER)).code == 0
    over = run("alerts", fleet, "resolve", valve, "--verdict", "real", "--note", "bearing replaced", "--json")
    assert [row["verdict"] for row in over.summary["rows"]] == ["real"]
    assert over.summary["outputs"] == {"alerts": store.join(fleet, alerting.TABLE)}

    left = run("alerts", fleet, "list", "--json").summary
    assert [(row["alert_id"], row["state"]) for row in left["rows"]] == [(pump, "acknowledged"), (fan, "snoozed")]
    assert left["counts"] == {"acknowledged": 1, "snoozed": 1, "resolved": 1}
    assert left["rows"][0]["note"] == "on my way"
    resolved = run("alerts", fleet, "list", "--state", "resolved").out
    assert resolved.startswith(f"{valve}  resolved (real)  valve 00 7  ")
    nothing = run("alerts", fleet, "--state", "open")
    assert nothing.err == "no alerts that are open\n"

    shown = run("alerts", fleet, "show", valve).out.splitlines()
    assert shown[1] == "    sounds least healthy: plant/valve/a.wav"
    assert [line[22:] for line in shown[2:]] == [
        "night 2026-11-01, severity 6.0",
        "acknowledge by ann: on my way",
        f"resolve as real by {registry.whoever()}: bearing replaced",
    ]
    assert f"snoozed until {LATER}" in run("alerts", fleet, "show", fan).out
    assert [row["alert_id"] for row in run("alerts", fleet, "show", fan, "--json").summary["rows"]] == [fan]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ack"], "ack of which alert? allowed: ids that `ray-asd alerts FLEET` lists"),
        (["ack", "{near}"], "unknown alert '{near}'; allowed: {first}, "),
        (["ack", "{over}"], "alert {over} is resolved (false); allowed: alerts that are open, acknowledged, snoozed"),
        (["snooze", "{first}"], "snooze needs --until; allowed: a night such as 2026-11-30"),
        (["snooze", "{first}", "--until", "soon"], "--until 'soon' is no date; allowed: a night such as 2026-11-30"),
        (["snooze", "{first}", "--until", "2026-01-01"], "snooze until 2026-01-01: that is over; allowed: "),
        (["resolve", "{first}"], "resolve needs --verdict; allowed: real, false, maintenance"),
        (["resolve", "{first}", "--verdict", "broken"], "'broken' is not one of 'real', 'false', 'maintenance'"),
        (["ack", "{first}", "--until", "2030-01-01"], "--until goes with snooze, not with ack; allowed: alerts FLEET"),
        (["ack", "{first}", "--state", "open"], "--state goes with list, not with ack"),
        (["list", "{first}"], "list {first}: that is one alert; allowed: show {first}"),
        (["mute", "{first}"], "'mute' is not one of 'list', 'show', 'ack', 'snooze', 'resolve', 'feedback'"),
        (["feedback", "{first}"], "alert {first} is open; allowed: alerts resolved with --verdict false"),
        (["feedback"], "no nights of false alarms; allowed once an alert was resolved with --verdict false"),
    ],
)
def test_what_cannot_be_done(fleet: str, arguments: list[str], message: str) -> None:
    first, over, _ = ids(fleet)
    assert run("alerts", fleet, "resolve", over, "--verdict", "false").code == 0
    before = alerting.newest(fleet)
    names = {"first": first, "over": over, "near": f"{first[:-1]}z"}
    refused = run("alerts", fleet, *(argument.format(**names) for argument in arguments))
    assert refused.code == 2
    assert message.format(**names) in refused.complaint
    assert alerting.newest(fleet) == before


def test_places_that_are_no_fleet(tmp_path: Path) -> None:
    for place, message in (
        (str(tmp_path), f"{tmp_path} holds no fleet (no nights/); allowed: what `nightly --out` was given"),
        (str(tmp_path / "none"), f"{tmp_path / 'none'}: no such folder"),
    ):
        refused = run("alerts", place)
        assert refused.code == 2
        assert message in refused.complaint
    (tmp_path / "nights").mkdir()
    assert run("alerts", str(tmp_path)).err == "no alerts that are open or acknowledged or snoozed\n"
