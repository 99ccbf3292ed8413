"""Connecting to Ray, what fits on it, and how SIGTERM ends a run."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from ray_asd.config import Worker
from ray_asd.errors import StageError, UserError
from ray_asd.stages import cluster


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_there_is_joined_and_left_running() -> None:
    with cluster.connected():
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_session")
def test_what_fits() -> None:
    cluster.check_fits("training", Worker(cpus=1), 2)
    with pytest.raises(UserError, match=r"^training needs 3 CPU \(3 worker\(s\)\); the cluster has 2 CPU$"):
        cluster.check_fits("training", Worker(cpus=1), 3)
    fits = {cpus: cluster.workers_that_fit(Worker(cpus=cpus)) for cpus in (0, 0.5, 1, 2, 3)}
    assert fits == {0: 2, 0.5: 2, 1: 2, 2: 1, 3: 1}
    assert cluster.workers_that_fit(Worker(cpus=1, gpus=1)) == 1


def test_sigterm_breaks_a_run_off_unless_something_knows_how_to_end_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with cluster._stoppable():
        with cluster.stopping(lambda: asked.append(True)):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [True]
        with pytest.raises(StageError, match=r"stopped by SIGTERM; the same command goes on where it was"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


_LOCAL = """
import os, pathlib, ray
from ray_asd.stages import cluster
with cluster.connected():
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
from ray_asd.stages import cluster
try:
    with cluster.connected():
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
from ray_asd.stages import cluster
with cluster.connected():
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = run(code, tmp_path)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "ray_asd.errors.StageError: stopped by SIGTERM; the same command goes on where it was"
