"""Nights that are killed, raced, or meet failing storage end with the tables, alerts and ledgers of undisturbed ones.

``KILL_ROUNDS`` (environment, default 0) is the number of kills at random moments; with any, each point comes before and
after what it is about.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from commands import run as command
from processes import wait_for
from ray_asd import store
from ray_asd.cli import morning
from ray_asd.stages.fleet import manifests
from ray_asd.store import lease
from s3_faults import through
from stages import chain
from stages.fleet import plant
from stages.fleet.conftest import Releases
from stages.fleet.plant import Recorders, day, run

ROUNDS = int(os.environ.get("KILL_ROUNDS", "0"))
SEARCH = os.pathsep.join([str(Path(__file__).parents[1] / "faults"), os.environ.get("PYTHONPATH", "")])
POINTS = [  # what a driver dies at, one after the other
    "os.rename driver /score/.*/parts/scores/",  # a worker has a shard ready
    f"os.link driver /night/{day(2)}-[0-9a-f]+/marker.json$",  # after the data
    *([r"os.link driver /alerts/000003.json$"] if ROUNDS else []),  # before the alert's update
    "os.rename driver /alerts.parquet$",  # after it
    f"os.link driver /nights/{day(2)}/000001.json$",  # before the manifest
    *(["os.rename driver /latest.json$", f"os.rename driver /{day(2)}.html$"] if ROUNDS else []),  # after it
]


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory) -> Recorders:
    return Recorders(str(tmp_path_factory.mktemp("plant") / "in")).three_nights()


def nights(fleet: str, releases: Releases, recorders: Recorders, numbers: range = range(3)) -> None:
    for number in numbers:
        run(fleet, releases.place, recorders, day(number))


@pytest.fixture(scope="module")
def undisturbed(
    releases: Releases, recorders: Recorders, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """A fleet after two nights, and what the three come to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    nights(str(folder / "two"), releases, recorders, range(2))
    nights(str(folder / "three"), releases, recorders)
    state = plant.state(str(folder / "three"))
    assert [len(state[str(day(number))]) for number in range(3)] == [1, 2, 1]
    assert state["alerts"][-1]["alerts"][0]["machine"] == ("fan", "00", "u2")
    assert [entry["cause"] for entry in state["alerts"]] == [f"night {day(number)}" for number in range(3)]
    return str(folder / "two"), state


def arguments(fleet: str, releases: Releases, recorders: Recorders, number: int = 2) -> list[str]:
    given = {"registry": releases.place, "source": recorders.source, "out": fleet, "night": str(day(number))}
    given |= {"rate": "0.5", "persistence": "1/1", "set": chain.ONE_WORKER}
    return ["nightly", *(word for name, value in given.items() for word in (f"--{name}", value)), "--json"]


def elsewhere(log: Path, words: list[str], **environment: str) -> "subprocess.Popen[bytes]":
    program = Path(sys.executable).with_name("ray-asd")
    with log.open("wb") as out:
        return subprocess.Popen([program, *words], stdout=out, stderr=out, env=os.environ | environment)


def cluster() -> dict[str, str]:
    """The Ray of these tests, for another process."""
    return {"RAY_ADDRESS": str(ray.get_runtime_context().gcs_address)}


def killed(log: Path, words: list[str], **environment: str) -> None:
    driver = elsewhere(log, words, **environment)
    assert driver.wait(300) == -signal.SIGKILL, log.read_text()


def copied(fleet: str, place: Path) -> str:
    shutil.copytree(fleet, place)
    return str(place)


def test_killed_at_each_point_where_it_hurts(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Each driver gets further than the one before, the first of them on a Ray of its own."""
    fleet, done = copied(undisturbed[0], tmp_path / "fleet"), tmp_path / "done"
    done.mkdir()
    faults = {"FAULTS": "\n".join(POINTS), "FAULTS_DONE": str(done), "PYTHONPATH": SEARCH}
    words, log, told = arguments(fleet, releases, recorders), tmp_path / "log", ""
    for number in range(len(POINTS)):
        killed(log, words, **faults, **(cluster() if number else {}))
        assert len(list(done.iterdir())) == number + 1
        told += log.read_text()
    assert elsewhere(log, words, **faults, **cluster()).wait(300) == 0, log.read_text()
    assert "which is gone; taken over" in told + log.read_text()
    assert plant.state(fleet) == undisturbed[1]
    assert Path(fleet, morning.PAGES, f"{day(2)}.html").exists()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    """On a cluster, where all of the work is done by tasks."""
    draw = random.Random(seed)
    fleet = copied(undisturbed[0], tmp_path / "fleet")
    before = set(store.folders(store.join(fleet, "ingest")))
    words, log = arguments(fleet, releases, recorders), tmp_path / "log"
    driver = elsewhere(log, words, **cluster())
    wait_for(lambda: driver.poll() is not None or set(store.folders(store.join(fleet, "ingest"))) > before)
    time.sleep(draw.uniform(0, 4))
    driver.kill()
    assert driver.wait() == -signal.SIGKILL, log.read_text()
    run(fleet, releases.place, recorders, day(2))
    assert plant.state(fleet) == undisturbed[1]


def test_a_second_run_leaves_the_night_to_the_first(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    fleet = copied(undisturbed[0], tmp_path / "fleet")
    held = lease.take(manifests.folder_of(fleet, day(2)), lambda: False)
    assert held is not None
    with held:
        left = command(*arguments(fleet, releases, recorders))
        assert left.code == 0, left.err
        assert f"is held by process {os.getpid()} on" in left.err
        assert left.err.splitlines()[-1].endswith("which is at work; nothing is left to do here")
        assert (left.summary["status"], left.summary["outputs"]) == ("done", {})
    assert manifests.newest(fleet, day(2)) is None
    assert command(*arguments(fleet, releases, recorders)).code == 0
    assert plant.state(fleet) == undisturbed[1]


def test_a_dead_run_is_waited_out_and_told_of(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On another machine, so that nobody can see that it is dead."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)
    fleet = copied(undisturbed[0], tmp_path / "fleet")
    gone = json.dumps(
        {"owner": "x", "renewals": 7, "released": False, "machine": "far", "pid": 1, "process_start": "1"}
    )
    store.write(store.join(manifests.folder_of(fleet, day(2)), "lease-000001.json"), gone.encode())
    lines: list[str] = []
    ended = run(fleet, releases.place, recorders, day(2), tell=lines.append)
    assert ended.night is not None
    assert lines[0].endswith("is held by process 1 on far; waiting at most 0.5 s to see whether that is alive")
    assert lines[1].endswith("is held by process 1 on far, which has not renewed it for 0.5 s; taken over")
    assert plant.state(fleet) == undisturbed[1]


def at_once(*runs: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(runs)) as pool:
        return [found.result() for found in [pool.submit(run) for run in runs]]


def test_two_runs_of_a_night_are_right_without_a_lease(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Both come to the manifest at the same moment."""
    fleet = copied(undisturbed[0], tmp_path / "fleet")
    together, append = threading.Barrier(2), manifests.append

    def raced(fleet: str, night: manifests.Night) -> bool:
        if night.night == day(2):
            together.wait(60)
        return append(fleet, night)

    monkeypatch.setattr(lease, "claim", lambda folder, tell: nullcontext())
    monkeypatch.setattr(manifests, "append", raced)
    ended = at_once(*[lambda: run(fleet, releases.place, recorders, day(2))] * 2)
    assert ended[0].night == ended[1].night == plant.newest(fleet, day(2))
    assert [one.reused for one in ended].count(True) == 1
    assert plant.state(fleet) == undisturbed[1]


def test_two_nights_at_once_are_both_right(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Whatever each of them saw of the other, no clip is scored twice and the alerts know the alarms of both."""
    fleet = str(tmp_path / "fleet")
    run(fleet, releases.place, recorders, day(0))
    at_once(*(lambda number=number: run(fleet, releases.place, recorders, day(number)) for number in (1, 2)))
    run(fleet, releases.place, recorders, day(2))  # the late recording, where the first night was held
    expected = undisturbed[1]
    for number in range(3):
        for name in ("clips", "scores"):
            ours = plant.tables(fleet, day(number))[name].to_pylist()
            key = f"{day(number)} {name}"
            assert sorted(ours, key=str) == sorted(expected[key], key=str)
    alert = plant.state(fleet)["alerts"][-1]["alerts"][0]
    assert (alert["machine"][2], list(alert["nights"])[-2:]) == ("u2", [day(1), day(2)])


def test_through_failing_storage(
    releases: Releases, recorders: Recorders, undisturbed: tuple[str, dict[str, Any]], bucket: str
) -> None:
    """One request in ten of the driver."""
    for entry in store.listing(undisturbed[0]):
        store.upload(Path(undisturbed[0], entry.path), store.join(bucket, entry.path))
    with through("--seed", "3", "--rate", "0.1") as proxy:
        nights(bucket, releases, recorders, range(2, 3))
        requests, faults = proxy.statistics()
    assert sum(faults.values()) > 0.05 * requests
    assert plant.state(bucket) == undisturbed[1]
