"""One holder at a time for work that keeps state between attempts: a lease with a fencing token.

Each taking of the lease creates ``lease-<token>.json`` with the next higher token, by conditional write. The holder
renews it, and goes on trying while storage fails; a process that finds a lease which is not renewed, or whose holder is
dead on this very machine, takes the next token. A holder that sees a higher token has lost the lease and must stop.
Clocks of different machines are never compared: a waiter watches the content change by its own clock.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray_asd import store
from ray_asd.errors import LeaseLost, StageError, UserError

RENEWAL_SECONDS = 5.0
STALE_SECONDS = 30.0  # a lease not renewed for so long is free


@dataclass(frozen=True)
class Fence:
    """What a worker needs in order to notice that its lease was taken over; it travels by value."""

    folder: str
    token: int

    def check(self) -> None:
        """Return when the lease still holds.

        Raises:
            LeaseLost: a higher token exists.
        """
        newest = _newest(self.folder)
        if newest > self.token:
            raise LeaseLost(f"{self.folder}: another process took over (token {newest} after {self.token})")


class Lease:
    """The lease on ``folder``, held inside a ``with`` block."""

    def __init__(self, folder: str, token: int, owner: str) -> None:
        self.fence = Fence(folder, token)
        self._owner = owner
        self._renewals = 0
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._thread.join()
        store.write(_path(self.fence), _content(self._owner, self._renewals, released=True))

    def _renew(self) -> None:
        """Until it is released or lost. A lease that storage did not let renew in time is still this one's until
        another process takes the next token, so what fails is tried again at the next turn.
        """
        while not self._released.wait(RENEWAL_SECONDS):
            self._renewals += 1
            try:
                self.fence.check()
                store.write(_path(self.fence), _content(self._owner, self._renewals, released=False))
            except LeaseLost:
                return
            except (StageError, UserError, OSError):
                continue


def take(folder: str, finished: Callable[[], bool], poll_seconds: float = 1.0) -> Lease | None:
    """Take the lease on ``folder``, waiting while another process holds it; None once ``finished()`` is true."""
    owner = uuid.uuid4().hex
    watched: tuple[str, float] | None = None
    while not finished():
        token = _newest(folder)
        holder = _read(folder, token)
        state = json.dumps(holder)
        if watched is None or watched[0] != state:
            watched = (state, time.monotonic())
        if holder is None or _is_free(holder) or time.monotonic() - watched[1] > STALE_SECONDS:
            fence = Fence(folder, token + 1)
            if store.create(_path(fence), _content(owner, 0, released=False)):
                return Lease(folder, fence.token, owner)
            continue
        time.sleep(poll_seconds)
    return None


def claim(folder: str, tell: Callable[[str], None], poll_seconds: float = 1.0) -> Lease | None:
    """The lease on ``folder``, for work that nobody need wait for; None where another process is at it, which is told.

    Whether a holder is alive shows when it renews its lease. One that does not within ``STALE_SECONDS``, or is dead on
    this very machine, is told of and loses it.
    """
    owner = uuid.uuid4().hex
    watched: tuple[int, dict[str, Any] | None, float] = 0, None, 0.0
    while True:
        token = _newest(folder)
        holder = _read(folder, token)
        over = ""
        if holder is not None and not holder["released"]:
            who = f"{folder} is held by process {holder['pid']} on {holder['machine'].split()[0]}"
            if _is_dead(holder):
                over = f"{who}, which is gone; taken over"
            elif watched[0] != token:
                watched = token, holder, time.monotonic()
                tell(f"{who}; waiting at most {STALE_SECONDS:g} s to see whether that is alive")
            elif watched[1] != holder:
                tell(f"{who}, which is at work; nothing is left to do here")
                return None
            elif time.monotonic() - watched[2] > STALE_SECONDS:
                over = f"{who}, which has not renewed it for {STALE_SECONDS:g} s; taken over"
            if not over:
                time.sleep(poll_seconds)
                continue
        fence = Fence(folder, token + 1)
        if store.create(_path(fence), _content(owner, 0, released=False)):
            if over:
                tell(over)
            return Lease(folder, fence.token, owner)


def _is_free(holder: dict[str, Any]) -> bool:
    return bool(holder["released"] or _is_dead(holder))


def _is_dead(holder: dict[str, Any]) -> bool:
    return bool(holder["machine"] == _machine() and _process_start(holder["pid"]) != holder["process_start"])


def _process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot (field 22 of /proc/pid/stat); empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _machine() -> str:
    """Where process ids mean the same: a host, as booted, and a container on it."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.exists():
        return socket.gethostname()
    return f"{socket.gethostname()} {boot.read_text().strip()} {namespace.readlink()}"


def _content(owner: str, renewals: int, released: bool) -> bytes:
    pid = os.getpid()
    holder = {"owner": owner, "renewals": renewals, "released": released, "machine": _machine()}
    return json.dumps(holder | {"pid": pid, "process_start": _process_start(pid)}).encode()


def _path(fence: Fence) -> str:
    return store.join(fence.folder, f"lease-{fence.token:06d}.json")


def _newest(folder: str) -> int:
    return max((int(name[6:-5]) for name in store.files(folder) if name.startswith("lease-")), default=0)


def _read(folder: str, token: int) -> dict[str, Any] | None:
    if not token:
        return None
    holder: dict[str, Any] = json.loads(store.read(_path(Fence(folder, token))))
    return holder
