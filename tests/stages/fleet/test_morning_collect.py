"""What a morning is told from: a fleet's nights, alerts and what was heard, as they lie there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commands import Run, run
from ray_asd import store
from ray_asd.build import steps
from ray_asd.cli import morning as command
from ray_asd.errors import UserError
from ray_asd.fleet_tables import Morning
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Change
from ray_asd.stages.fleet import alerting, deciding, explain, morning
from stages.fleet.heard import LAST, Nights, Row, decided, detector, recorded, scored, wave

FAN, PUMP = ("fan", "00", "f1"), ("pump", "00", "p1")
NIGHTS = [LAST - timedelta(days=back) for back in (33, 4, 3, 1, 0)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five nights, one of them long ago; the fan alarms in the last three, the pump is silent in the last one."""
    folder = tmp_path_factory.mktemp("fleet")
    root, recordings = str(folder / "fleet"), str(folder / "in")
    healthy = [recorded(f"{recordings}/h{one}.wav", FAN, wave(one), "train") for one in range(8)]
    nights = Nights(root, detector(root, healthy))
    decisions = []
    for number, day in enumerate(NIGHTS):
        wrong = number >= 2
        rows = [decided(FAN, 3.0 + number if wrong else 0.1, day)]
        rows += [decided(PUMP, 0.2, day)] if day != LAST else []
        clips: list[Row] = []
        if wrong:
            clips = [recorded(f"{recordings}/{day}.wav", FAN, wave(50 + number, 3100.0), "test")]
        told = {"silent": {"pump 00 p1": str(NIGHTS[-2])} if day == LAST else {}}
        made = nights.add(day, rows, clips, [scored(row, 2.0, 0.05, healthy[:2]) for row in clips], told)
        decisions.append(deciding.decisions(made))
        heard = steps.ensure(explain.step(made, nights.detector), root)
        alerting.follow_night(root, decisions, why=explain.told(heard))
    return root


def told(found: Morning) -> tuple[object, ...]:
    return found.night, found.revision, found.version, len(found.days), sorted(found.scored)


def test_the_last_night_and_those_before_it(fleet: str) -> None:
    found = morning.collect(fleet)
    assert told(found) == (LAST, 1, "v1", 30, NIGHTS[1:])
    assert len(found.decisions) == 7
    assert found.silent == {PUMP: NIGHTS[-2]}
    (alert,) = alerts.from_table(found.alerts)
    assert (alert.machine, alert.state, alert.nights) == (FAN, "open", tuple(NIGHTS[2:]))
    assert sorted(row["night"] for row in found.why.to_pylist()) == NIGHTS[2:], "of each night of the alert"
    assert {row["content_hash"] for row in found.why.to_pylist()} <= set(found.clips["content_hash"].to_pylist())
    assert found.channel == 0
    assert found.drift.num_rows == found.sounds.num_rows == 0


def test_an_earlier_night_knows_nothing_of_later_ones(fleet: str) -> None:
    found = morning.collect(fleet, NIGHTS[1])
    assert told(found) == (NIGHTS[1], 1, "v1", 30, NIGHTS[:2])
    assert found.alerts.num_rows == 0
    assert (len(found.decisions), found.silent) == (4, {})


def test_nights_that_are_not_there_are_named(fleet: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=f"night {NIGHTS[-1] - timedelta(days=2)}: .* has no such night; allowed: .*{LAST}"
    ):
        morning.collect(fleet, LAST - timedelta(days=2))
    with pytest.raises(UserError, match="has no nights; allowed: the --out of `ray-asd nightly`"):
        morning.collect(str(tmp_path))


def test_tables_of_old_nights_may_be_gone(fleet: str, tmp_path: Path) -> None:
    import shutil

    copied = str(tmp_path / "copied")
    shutil.copytree(fleet, copied)
    (old,) = [name for name in store.folders(store.join(copied, "night")) if name.startswith(str(NIGHTS[2]))]
    store.remove(store.join(copied, "night", old))
    found = morning.collect(copied)
    assert sorted(set(found.decisions["night"].to_pylist())) == [NIGHTS[1], *NIGHTS[3:]]
    assert sorted(row["night"] for row in found.why.to_pylist()) == NIGHTS[3:]


def outputs(done: Run) -> dict[str, str]:
    assert done.code == 0, done.err
    found: dict[str, str] = done.summary["outputs"]
    return found


def test_the_command_writes_the_page_and_prints_the_digest(fleet: str, tmp_path: Path) -> None:
    done = run("morning", fleet, "--json")
    found = outputs(done)
    assert found == {"page": f"{fleet}/pages/{LAST}.html", "latest": f"{fleet}/pages/latest.html"}
    page = Path(found["page"]).read_text()
    assert Path(found["latest"]).read_text() == page
    assert "a tone near 3.1 kHz" in page
    assert page.count("<audio") == 2
    lines = done.err.splitlines()
    assert lines[0] == f"night {LAST}, revision 1, scored by v1"
    assert any("fan 00 f1: since" in line and "a tone near 3.1 kHz" in line for line in lines)
    assert f"  pump 00 p1: last heard {NIGHTS[-2]}" in lines

    out = str(tmp_path / "elsewhere")
    older = outputs(run("morning", fleet, "--night", str(NIGHTS[1]), "--out", out, "--no-audio", "--json"))
    assert older == {"page": f"{out}/{NIGHTS[1]}.html"}
    assert store.holds_outputs(out)
    assert "Nothing: no alert is open" in Path(older["page"]).read_text()
    wrong = run("morning", fleet, "--night", "yesterday")
    assert (wrong.code, "allowed: a date such as 2026-11-25" in wrong.complaint) == (2, True)
    nowhere = run("morning", str(tmp_path / "nowhere"))
    assert (nowhere.code, "no such folder" in nowhere.complaint) == (2, True)


def test_what_somebody_did_is_told(fleet: str, tmp_path: Path) -> None:
    (alert,) = alerting.current(fleet)
    change = Change("ann", datetime(2026, 11, 26, 7, tzinfo=UTC), "bearing ordered")
    alerting.change(fleet, [alert.alert_id], lambda one: alerts.acknowledge(one, change), "acknowledge")
    written = command.write(fleet, LAST, str(tmp_path))
    assert "acknowledged or snoozed: 1" in written.digest
    assert "by ann: bearing ordered" in Path(written.page).read_text()
