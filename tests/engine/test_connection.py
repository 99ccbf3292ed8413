"""Connecting to Ray, what fits on it, and how SIGTERM ends a run."""

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError

from ray_asd.config import Worker
from ray_asd.engine import connection, placement
from ray_asd.errors import StageError, UserError


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_there_is_joined_and_left_running() -> None:
    with connection.connected():
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
def test_what_can_never_fit_is_refused() -> None:
    placement.check_fits("training", Worker(cpus=1), 2)
    with pytest.raises(UserError, match=r"^training needs 3 CPU \(3 worker\(s\)\); the cluster has 2 CPU$"):
        placement.check_fits("training", Worker(cpus=1), 3)


def room(**resources: float) -> placement.Budget:
    return placement.Budget(lambda: resources)


@pytest.mark.parametrize(
    ("worker", "workers"),
    [
        (Worker(cpus=0), 2),  # no more than there are CPUs to run them on
        (Worker(cpus=0.1), 20),
        (Worker(cpus=0.5), 4),
        (Worker(cpus=1), 2),
        (Worker(cpus=2), 1),
        (Worker(cpus=1, gpus=1), 1),
        (Worker(cpus=1, memory_gb=2), 1),
    ],
)
def test_work_holds_what_is_free(worker: Worker, workers: int) -> None:
    budget = room(CPU=2, GPU=1, memory=3 * placement.GIB)
    for _ in range(3):  # and gives all of it back
        with budget.hold(worker, 1, 100) as grant:
            assert grant.workers == workers
            assert (grant.held.cpus, grant.held.gpus) == (worker.cpus * workers, worker.gpus * workers)
            assert grant.held.waited < 0.1
    with budget.hold(worker, 1, 1) as grant:
        assert grant.workers == 1


def test_nothing_starts_before_its_share_is_free_and_none_is_overtaken() -> None:
    budget, log, waited = room(CPU=2), list[str](), dict[str, float]()

    def work(name: str, least: int, most: int) -> None:
        with budget.hold(Worker(), least, most) as grant:
            log.append(f"{name} {grant.workers}")
            waited[name] = grant.held.waited

    with ThreadPoolExecutor(3) as pool:
        with budget.hold(Worker(), 1, 1):
            for name, least in (("pair", 2), ("single", 1)):
                pool.submit(work, name, least, least)
                time.sleep(0.2)
            assert log == []  # the single one would fit, but came after
        pool.shutdown(wait=True)
    assert log == ["pair 2", "single 1"]
    assert waited["pair"] >= 0.4


def test_who_gives_up_waiting_holds_up_nobody() -> None:
    capacity = {"CPU": 1.0}

    def gone() -> dict[str, float]:
        if not capacity:
            raise RayError("the cluster is gone")
        return capacity

    budget = placement.Budget(gone)
    capacity.clear()
    with pytest.raises(RayError), budget.hold(Worker(), 1, 1):
        pass
    capacity["CPU"] = 1.0
    with budget.hold(Worker(), 1, 1) as grant:
        assert grant.workers == 1


def test_sigterm_breaks_a_run_off_unless_something_knows_how_to_end_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with connection._stoppable():
        with connection.stopping(lambda: asked.append(True)):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [True]
        with pytest.raises(StageError, match=r"stopped by SIGTERM; the same command goes on where it was"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


_LOCAL = """
import os, pathlib, ray
from ray_asd.engine import connection
with connection.connected():
    print(os.environ["RAY_AUTH_TOKEN_PATH"])
    print(oct(pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o777))
print(ray.is_initialized())
"""


def run(code: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = clean | {"HOME": str(home)} | variables
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=environment, check=False
    )


def test_a_local_ray_has_a_private_token_that_dies_with_it(tmp_path: Path) -> None:
    done = run(_LOCAL, tmp_path)
    token, mode, running = done.stdout.splitlines()[-3:]
    assert (mode, running) == (oct(stat.S_IRUSR | stat.S_IWUSR), "False"), done.stderr
    assert not Path(token).exists()
    assert not (tmp_path / ".ray").exists()


def test_an_address_where_no_ray_answers(tmp_path: Path) -> None:
    code = """
from ray_asd.errors import UserError
from ray_asd.engine import connection
try:
    with connection.connected():
        pass
except UserError as error:
    print(error)
"""
    done = run(code, tmp_path, RAY_ADDRESS="127.0.0.1:1")
    (line,) = done.stdout.splitlines()[-1:]
    assert line.startswith("RAY_ADDRESS='127.0.0.1:1': no Ray cluster answers there"), done.stderr


def test_ray_does_not_take_sigterm_away(tmp_path: Path) -> None:
    code = """
import os, signal
from ray_asd.engine import connection
with connection.connected():
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = run(code, tmp_path)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "ray_asd.errors.StageError: stopped by SIGTERM; the same command goes on where it was"
