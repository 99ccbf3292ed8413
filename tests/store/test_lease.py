"""The lease: one holder among processes, a dead one's place is taken at once, a live one's never."""

import json
import multiprocessing
import os
import signal
import time
from multiprocessing.queues import Queue, SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from processes import wait_for
from ray_asd import store
from ray_asd.errors import LeaseLost
from ray_asd.store import lease
from s3_faults import failing


def never() -> bool:
    return False


def take(folder: str) -> lease.Lease:
    held = lease.take(folder, never, poll_seconds=0.02)
    assert held is not None
    return held


def test_release_frees_at_once(root: str) -> None:
    for token in (1, 2, 3):
        with take(root) as held:
            assert held.fence == lease.Fence(root, token)
            held.fence.check()
    assert store.files(root) == ["lease-000001.json", "lease-000002.json", "lease-000003.json"]


def test_waiting_ends_when_the_work_is_finished(root: str) -> None:
    answers = iter([False, False, True])
    with take(root):
        assert lease.take(root, lambda: next(answers), poll_seconds=0.01) is None
    assert lease.take(root, lambda: True) is None
    assert store.files(root) == ["lease-000001.json"]


def test_the_lease_is_released_when_the_work_fails(root: str) -> None:
    with pytest.raises(ZeroDivisionError), take(root):
        raise ZeroDivisionError
    assert take(root).fence.token == 2


def renewals(folder: str) -> int:
    return int(json.loads(store.read(store.join(folder, "lease-000001.json")))["renewals"])


def test_a_lease_is_renewed_again_after_storage_refused_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    with failing("creation", "InvalidAccessKeyId", "InvalidToken"), take(bucket):
        wait_for(lambda: renewals(bucket) > 3)
    assert renewals(bucket) > 3


def test_a_lease_is_renewed_again_after_its_disk_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    (tmp_path / "disk").mkdir()
    (tmp_path / "no folder").touch()

    def mount(name: str) -> str:
        (tmp_path / "new").symlink_to(tmp_path / name)
        return str((tmp_path / "new").replace(tmp_path / "stage"))

    with take(mount("disk")):
        folder = mount("no folder")
        time.sleep(0.2)
        mount("disk")
        reached = renewals(folder)
        wait_for(lambda: renewals(folder) > reached)
    assert store.files(folder) == ["lease-000001.json"], "nobody took it meanwhile"


def test_a_lost_lease_is_renewed_no_more(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    with take(root) as held:
        store.create(store.join(root, "lease-000002.json"), b"{}")
        held._thread.join(60)
        assert not held._thread.is_alive()


def _work(folder: str, worker: int, rounds: int, log: "SimpleQueue[tuple[str, int]]") -> None:
    for _ in range(rounds):
        with take(folder):
            log.put(("in", worker))
            time.sleep(0.05)
            log.put(("out", worker))


def test_of_several_processes_one_works_at_a_time(root: str) -> None:
    context, workers, rounds = multiprocessing.get_context("spawn"), 3, 3
    log = context.SimpleQueue()  # what is put is there when put returns, unlike in a Queue, and so in order
    processes = [context.Process(target=_work, args=(root, worker, rounds, log)) for worker in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    events = []
    while not log.empty():
        events.append(log.get())
    assert len(events) == 2 * workers * rounds
    assert [kind for kind, _ in events] == ["in", "out"] * (workers * rounds)
    assert all(entered[1] == left[1] for entered, left in zip(events[::2], events[1::2], strict=True))
    assert len(store.files(root)) == workers * rounds


def _hold(folder: str, holding: Event) -> None:
    with take(folder):
        holding.set()
        time.sleep(600)


def test_a_killed_holder_is_replaced_long_before_its_lease_is_stale(root: str) -> None:
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    holder = context.Process(target=_hold, args=(root, holding))
    holder.start()
    assert holding.wait(120)
    polls = iter(range(10))
    assert lease.take(root, lambda: next(polls) == 9, poll_seconds=0.05) is None  # it lives
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    polls = iter(range(10))
    held = lease.take(root, lambda: next(polls) == 9, poll_seconds=0.05)
    assert held is not None
    assert held.fence.token == 2


def test_a_process_of_the_same_id_is_not_the_holder(root: str) -> None:
    take(root)
    place = store.join(root, "lease-000001.json")
    store.write(place, json.dumps(json.loads(store.read(place)) | {"process_start": "1"}).encode())
    assert take(root).fence.token == 2


def _hold_elsewhere(folder: str, log: "Queue[str]") -> None:
    lease._machine = lambda: "another"
    lease.RENEWAL_SECONDS = 0.1
    with take(folder) as held:
        log.put("holding")
        while True:
            time.sleep(0.05)
            try:
                held.fence.check()
            except LeaseLost as error:
                log.put(str(error))
                return


def test_a_holder_elsewhere_is_replaced_only_when_it_falls_silent(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gets no processor for so long is as silent as a dead one, so it is long."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 3.0)
    context = multiprocessing.get_context("spawn")
    log = context.Queue()
    holder = context.Process(target=_hold_elsewhere, args=(root, log))
    holder.start()
    assert holder.pid
    assert log.get(timeout=120) == "holding"
    begun = time.monotonic()
    assert lease.take(root, lambda: time.monotonic() - begun > 1.2 * lease.STALE_SECONDS, poll_seconds=0.05) is None
    os.kill(holder.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    with take(root) as held:
        assert held.fence.token == 2
        assert time.monotonic() - stopped > lease.STALE_SECONDS - lease.RENEWAL_SECONDS
        os.kill(holder.pid, signal.SIGCONT)
        assert log.get(timeout=120) == f"{root}: another process took over (token 2 after 1)"
        holder.join()
        held.fence.check()


def test_a_lease_that_nobody_need_wait_for(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left to whoever renews it, and taken from the dead, which is told; released ones are free."""
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    lines: list[str] = []
    with take(root):
        assert lease.claim(root, lines.append, poll_seconds=0.02) is None
    assert [line.rpartition(", which ")[2] for line in lines[1:]] == ["is at work; nothing is left to do here"]
    lines.clear()
    claimed = lease.claim(root, lines.append)
    assert claimed is not None
    with claimed:
        assert (claimed.fence.token, lines) == (2, [])
    process = multiprocessing.get_context("spawn").Process(target=_leave_held, args=(root,))
    process.start()
    process.join()
    taken = lease.claim(root, lines.append)
    assert taken is not None
    assert taken.fence.token == 4
    (line,) = lines
    assert line.startswith(f"{root} is held by process {process.pid} on ")
    assert line.endswith(", which is gone; taken over")


def _leave_held(folder: str) -> None:
    take(folder)
    os._exit(0)
