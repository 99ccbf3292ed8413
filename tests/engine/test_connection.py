"""Connecting to Ray, what fits on it, and how SIGTERM ends a run."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError

import processes
from ray_asd.config import Worker
from ray_asd.engine import connection, placement
from ray_asd.engine.nodes import GIB
from ray_asd.errors import StageError, Unplaced, UserError


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_there_is_joined_and_left_running() -> None:
    with connection.connected():
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
def test_what_can_never_fit_is_refused() -> None:
    placement.check_fits("training", Worker(cpus=1), 2)
    with pytest.raises(UserError, match=r"^training needs 3 x \(1 CPU\); the cluster has 1 node of 2 CPU$"):
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
    budget = room(CPU=2, GPU=1, memory=3 * GIB)
    for _ in range(3):  # and gives all of it back
        with budget.hold(worker, 1, 100) as grant:
            assert grant.workers == workers
            assert (grant.held.cpus, grant.held.gpus) == (worker.cpus * workers, worker.gpus * workers)
            assert grant.held.waited < placement._CAPACITY_SECONDS  # it never slept
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
            for queued, (name, least) in enumerate((("pair", 2), ("single", 1)), start=1):
                pool.submit(work, name, least, least)
                processes.wait_for(lambda queued=queued: len(budget._queue) == queued)
            time.sleep(0.4)
            assert log == []  # the single one would fit, but came after
        pool.shutdown(wait=True)
    assert log == ["pair 2", "single 1"]
    assert waited["pair"] >= 0.4


def test_on_a_cluster_that_grows_so_many_wait_inside_ray() -> None:
    """But of those that hold something beside their workers only one, or two could leave each other no worker."""
    budget = placement.Budget(lambda: None)
    looks: list[str] = []

    def look(name: str) -> Callable[[], None]:
        def give_up() -> None:
            looks.append(name)
            raise Unplaced(name)

        return give_up

    with ExitStack() as stack:
        for beside in [{}, {"CPU": 1.0}, *[{}] * (placement.AT_ONCE - 3)]:
            grant = stack.enter_context(budget.hold(Worker(), 1, 50, beside))
            assert grant.workers == 50
        with pytest.raises(Unplaced), budget.hold(Worker(), 1, 1, {"CPU": 1.0}, look("second bank")):
            pass
        stack.enter_context(budget.hold(Worker(), 1, 1))
        with pytest.raises(Unplaced), budget.hold(Worker(), 1, 1, look=look("one too many")):
            pass
    assert looks == ["second bank", "one too many"]
    with budget.hold(Worker(), 1, 1, {"CPU": 1.0}):
        pass


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
import os, pathlib, signal, sys, ray, pyarrow as pa
from ray_asd.build import Attempt
from ray_asd.config import Worker
from ray_asd.engine import connection, cutting, shards
from ray_asd.engine.receipts import Done
from ray_asd.engine.progress import silent

class Work:
    def __call__(self, rows, attempt, name):
        return Done([attempt.put(name, b"x")], {"rows": rows.num_rows})

try:
    with connection.connected(cpus=1):
        print(os.environ["RAY_AUTH_TOKEN_PATH"])
        print(oct(pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o777))
        parts, attempt = cutting.rows(pa.table({"number": range(20)}), 3), Attempt(sys.argv[1])
        print(shards.run("t", Work, parts, attempt, worker=Worker(), progress=silent).counts)
        os.kill(os.getpid(), signal.SIGTERM)
        print("not stopped")
finally:
    print(ray.is_initialized())
"""


def run(code: str, home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = clean | {"HOME": str(home)} | variables
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )


def test_a_local_ray_of_one_cpu(tmp_path: Path) -> None:
    """Its token is private and dies with it, one CPU is enough for shards, and SIGTERM is not taken away."""
    done = run(_LOCAL, tmp_path, str(tmp_path / "out"))
    token, mode, counts, running = done.stdout.splitlines()[-4:]
    assert (mode, running) == (oct(stat.S_IRUSR | stat.S_IWUSR), "False"), done.stderr
    assert not Path(token).exists()
    assert not (tmp_path / ".ray").exists()
    assert counts == "{'rows': 20}"
    assert not [line for line in done.stderr.splitlines() if line.startswith("[")], "Ray puts no lines of its own there"
    assert len(list((tmp_path / "out").iterdir())) == 7
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "ray_asd.errors.Retryable: stopped by SIGTERM; the same command goes on where it was"


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_of_something_else_is_refused(address: str, tmp_path: Path) -> None:
    done = run(
        "from ray_asd.engine import connection\nwith connection.connected(): pass", tmp_path, RAY_ADDRESS=address
    )
    last = f"RAY_ADDRESS={address!r} is not a cluster's own address; allowed: host:port of its head, auto, or none"
    assert last in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("ray_asd.errors.UserError: ")


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
