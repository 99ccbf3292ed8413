"""Who waits for a place says so, gives up in time, and never for what this process itself holds."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from ray_asd.config import Worker
from ray_asd.engine import connection, patience, waiting
from ray_asd.engine.waiting import Waiting
from ray_asd.errors import Retryable, Unplaced

pytestmark = pytest.mark.usefixtures("ray_session")

TOLD: list[tuple[str, int, int]] = []


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(patience.WAIT_VARIABLE, str(0.2 / 60))
    monkeypatch.setattr(waiting, "_SAID_SECONDS", 0.1)
    TOLD.clear()
    yield
    assert not waiting._at_work


def wait(what: str) -> Waiting:
    return Waiting(what, Worker(cpus=1, memory_gb=0.001), 2, lambda *line: TOLD.append(line))


def test_who_waits_says_for_what_and_stays_where_it_was() -> None:
    work = wait("train")
    work.look()
    assert TOLD == []
    time.sleep(0.11)
    work.look()
    work.progress("train  loss 2.0", 10, 30)
    time.sleep(0.11)
    work._since = time.monotonic()
    work.look()
    asked = "train  waits for 2 x (1 CPU, 0.0 GiB memory), free are 2 CPU, "
    assert [line[0].startswith(asked) for line in TOLD] == [True, False, True]
    assert [line[1:] for line in TOLD] == [(0, 1), (10, 30), (10, 30)]


def test_who_has_waited_too_long_gives_up() -> None:
    work = wait("train")
    time.sleep(0.21)
    with pytest.raises(Unplaced, match=r"^train: waited 0.00333333 minutes for 2 x \(1 CPU, .*; free are 2 CPU, "):
        work.look()


def test_what_this_process_does_itself_is_worth_any_wait() -> None:
    work, other = wait("train"), wait("embed")
    with other.place(1, 1):
        time.sleep(0.21)
        with pytest.raises(Unplaced):
            work.look()  # the other one waits too
        other.begin()
        work.look()
        time.sleep(0.21)
        work.look()
    time.sleep(0.21)
    with pytest.raises(Unplaced):
        work.look()


def test_who_has_worked_waits_anew_once_its_workers_are_lost() -> None:
    work = wait("train")
    time.sleep(0.21)
    work.again()  # it never had a place
    with pytest.raises(Unplaced):
        work.look()
    with work.place(1, 1):
        work.begin()
        assert work.is_over
        time.sleep(0.21)
        work.again()
        assert not work.is_over
        work.look()


def test_sigterm_ends_a_wait() -> None:
    work = wait("train")
    with connection._stoppable(), connection.stopping(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Retryable, match=r"^stopped by SIGTERM"):
            work.look()
