"""``ray-asd demo`` and ``demo --nightly``, of a fleet and a plant that are smaller still."""

from dataclasses import replace
from pathlib import Path

import pytest

from commands import run
from ray_asd import build, store
from ray_asd.data.simulate import Fleet
from ray_asd.stages import demo, demo_nights
from ray_asd.stages.fleet import manifests
from ray_asd.tables import Folder

SMALLER = ("training=null", "augmentation=null", "transformer_pooling=null")


@pytest.mark.usefixtures("ray_session")
def test_all_systems_stand_in_one_table_beside_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Fleet(("fan",), train_source=22, train_target=3, test=3, seconds=1.0)
    monkeypatch.setattr(demo, "fleet", lambda seed: replace(small, seed=seed))
    command = ["demo", "--out", str(tmp_path / "demo"), "--seed", "1", "--json"]
    command += [part for setting in (*SMALLER, "resources.embed_workers=1") for part in ("--set", setting)]
    first = run(*command)
    assert first.code == 0, first.err
    outputs = first.summary["outputs"]
    metrics = build.resolve(outputs["metrics"], "evaluate").table(Folder.METRICS)
    tuned = "hubert+WS+frozen (random:tiny)"
    systems = dict.fromkeys(metrics["system"].to_pylist())
    assert list(systems) == [tuned, f"spectral & {tuned}", "spectral", "log-mel"]
    assert all(system in first.err for system in systems)
    assert store.exists(outputs["report"])
    again = run(*command)
    assert (again.code, again.summary["reused"], again.summary["outputs"]) == (0, True, outputs)


@pytest.mark.usefixtures("ray_session")
def test_nights_follow_each_other_and_a_rerun_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo_nights.plant
    smaller = {"units": 2, "nights": 2, "clips": 2, "healthy": 3, "faulty": 0.5, "machines": ("fan",), "seconds": 1.0}
    monkeypatch.setattr(demo_nights, "plant", lambda seed: replace(whole(seed), **smaller))
    first = run("demo", "--nightly", "--out", str(tmp_path / "demo"), "--json")
    assert first.code == 0, first.err
    assert "night 2025-03-02: revision 1 by v1: 4 of 4 clips scored" in first.err
    outputs = first.summary["outputs"]
    assert len(store.read(outputs["faults"]).splitlines()) == 2
    assert b"fan-001" in store.read(outputs["page"])
    assert [str(day) for day in manifests.dates(store.parent(outputs["latest"]))] == ["2025-03-01", "2025-03-02"]
    again = run("demo", "--nightly", "--out", str(tmp_path / "demo"), "--json")
    assert (again.code, again.summary["reused"]) == (0, True)
    assert again.summary["outputs"] == outputs
    wrong = run("demo", "--nightly", "--out", str(tmp_path / "other"), "--set", "training.steps=3")
    assert (wrong.code, wrong.complaint.split(": ", 1)[1][:28]) == (2, "--set training.steps=3: no r")


def test_a_plant_has_enough_calibration_to_alarm_from_the_first_night_on() -> None:
    plant = demo_nights.plant(0)
    nights = plant.healthy // 3
    assert plant.clips / (plant.units * nights * plant.clips + 1) <= 0.1 / plant.units
