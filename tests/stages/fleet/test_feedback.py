"""False alarms become part of the next detector: from the alert of a night to scores that are not high any more."""

from pathlib import Path

import pyarrow as pa

from commands import Run, run
from ray_asd import build, store
from ray_asd.fleet_tables import DECISIONS
from ray_asd.scoring.alerts import Persistence
from ray_asd.stages.fleet import alerting
from ray_asd.tables import Folder
from stages import chain
from stages.fleet import plant
from stages.fleet.conftest import Releases
from stages.fleet.test_webhook import no_proxy as no_proxy
from stages.fleet.test_webhook import receiving

UNITS = [("fan", "u1"), ("fan", "u2"), ("pump", "u3")]


def nightly(place: str, releases: Releases, recorders: plant.Recorders, night: int, url: str) -> Run:
    given = (
        "--registry",
        releases.place,
        "--source",
        recorders.source,
        "--out",
        place,
        "--night",
        str(plant.day(night)),
    )
    return run("nightly", *given, "--set", chain.ONE_WORKER, "--webhook", url, "--json")


def alarms(*units: tuple[str, str]) -> pa.Table:
    """DECISIONS of the first night, by which these machines alarm."""
    rows = [
        {"machine_type": kind, "section": "00", "machine_id": unit, "night": plant.day(0), "clips": 2}
        | {"statistic": 6.0, "p_value": 1e-6, "could_alarm": True, "alarm": True}
        for kind, unit in units
    ]
    return pa.Table.from_pylist(rows, DECISIONS)


def test_what_was_no_fault_is_healthy_from_then_on(releases: Releases, tmp_path: Path) -> None:
    recorders, place, root = plant.Recorders(str(tmp_path / "in")), str(tmp_path / "fleet"), str(tmp_path / "runs")
    recorders.night(plant.day(0), UNITS, hours=(1, 2, 3), u1=1.0)
    plant.run(place, releases.place, recorders, plant.day(0), rate=0.001)  # no alarm of its own
    scores = {row["clip_id"]: row for row in plant.tables(place, plant.day(0))[Folder.SCORES].to_pylist()}
    clips = plant.tables(place, plant.day(0))[Folder.CLIPS].to_pylist()
    section = clips[0]["section"]
    own = {row["clip_id"] for row in clips if row["machine_id"] == "u1"}
    others = {row["clip_id"] for row in clips if row["machine_id"] == "u2"}
    assert min(scores[one]["score"] for one in own) > max(scores[one]["score"] for one in others), "it sounds otherwise"

    decisions = alarms(UNITS[0], UNITS[2])
    decisions = decisions.set_column(1, DECISIONS.field("section"), pa.array([section] * 2))
    false, real = alerting.follow_night(place, [decisions], Persistence(1, 1))
    if false.machine[2] != "u1":
        false, real = real, false
    with receiving() as server:
        done = nightly(place, releases, recorders, 0, server.url)
        assert (done.code, done.summary["reused"]) == (0, True), done.err
        assert f"webhook: 2 event(s) sent to http://127.0.0.1:{server.server_port}\n" in done.err
        assert "hidden" not in done.err + done.out
        assert sorted(server.ids) == sorted(f"{alert.alert_id}.opened" for alert in (false, real))
    for alert, verdict in ((false, "false"), (real, "real")):
        assert run("alerts", place, "resolve", alert.alert_id, "--verdict", verdict).code == 0
    refused = run("alerts", place, "feedback", real.alert_id)
    assert f"alert {real.alert_id} is resolved (real); allowed: alerts resolved with --verdict false" in refused.err

    made = run("alerts", place, "feedback", "--json")
    assert made.code == 0, made.err
    added = build.resolve(made.summary["outputs"]["clips"], "feedback")
    rows = added.table(Folder.CLIPS).to_pylist()
    assert {row["clip_id"] for row in rows} == own
    assert {(row["split"], row["label"]) for row in rows} == {("train", "normal")}
    assert added.marker.counts["train"] == 3
    assert store.parent(store.parent(added.uri)) == place
    again = run("alerts", place, "feedback", false.alert_id, "--json")
    assert again.summary["outputs"] == made.summary["outputs"]
    assert again.summary["reused"]

    used = ("--out", root, "--set", chain.ONE_WORKER, "--json")
    enrolled = run("enroll", "--detector", f"{releases.place}@v1", "--add", added.uri, *used)
    assert enrolled.code == 0, enrolled.err
    detector = enrolled.summary["outputs"]["detector"]
    assert build.resolve(detector, "enroll").marker.counts["clips"] == 24 + 24 + 3
    recorders.night(plant.day(1), UNITS, hours=(4, 5), u1=1.0)
    place_after = str(tmp_path / "after")
    plant.run(place_after, detector, recorders, plant.day(1))
    with receiving(lambda handler, event: 410) as server:
        done = nightly(place, releases, recorders, 1, server.url)
        assert (done.code, done.summary["reused"]) == (0, False), done.err
        assert "webhook: 2 event(s) are sent by the next run: " in done.err

    def highest(where: str) -> float:
        found = plant.tables(where, plant.day(1))[Folder.SCORES].to_pylist()
        return max(row["score"] for row in found if row["machine_id"] == "u1")

    assert highest(place_after) < 0.5 * highest(place), "nights like those are not unusual any more"
