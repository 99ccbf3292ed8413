"""Connecting to Ray: the cluster of ``RAY_ADDRESS``, or a local Ray on loopback with a token of its own."""

import atexit
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from ray_asd.build.steps import Step
from ray_asd.engine import joining, nodes, placement
from ray_asd.engine.address import cluster
from ray_asd.errors import STOPPED, Retryable

_REPORT_SECONDS = "0.5"  # how often Ray Train's controller looks at its workers; its default makes each report wait 2 s
# How long it hears nothing else while its workers wait for their place; its default is a minute.
_PLACING_SECONDS = "10"

_on_stop: list[Callable[[], None]] = []
_stop_requested = threading.Event()


@contextmanager
def connected(cpus: int | None = None) -> Iterator[None]:
    """Ray for the block: joined when already there, else connected or started, and left again at its end.

    ``cpus`` are those of a Ray started here, all of this machine's by default. A local Ray listens with token
    authentication, since its ports are open on all interfaces even when told to use loopback; the token lives in a
    private file and dies with it.

    Raises:
        UserError, StageError: there is no Ray to be had; see ``joining``.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _REPORT_SECONDS)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _PLACING_SECONDS)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = cluster()
    if address:
        joining.check(address)
    else:
        _use_private_token()
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
        os.environ.setdefault("RAY_enable_metrics_collection", "0")  # and without a dashboard nobody looks
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": cpus}
    with joining.explained(address):
        ray.init(address=address or "local", **options)  # whatever cluster a file of Ray's remembers
    try:
        with _stoppable():  # only now, since Ray has put its own handler there, which aborts
            yield
    finally:
        ray.shutdown()


def check_fits(todo: Sequence[Step]) -> None:
    """Refuse steps that the Ray which is there, or the one that is to be started here, could never hold.

    Raises:
        UserError: names one of them. Of a cluster that is yet to be joined nothing is known.
    """
    if ray.is_initialized():
        placement.check_steps(todo)
    elif not cluster():
        placement.check_steps(todo, [nodes.here()])


@cache
def _use_private_token() -> None:
    """Once per process, since Ray keeps the first token it has read. Ray itself then turns authentication on."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="ray_asd-token-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)


@contextmanager
def stopping(action: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGTERM calls ``action`` and lets the block end by itself instead of breaking it off."""
    _on_stop.append(action)
    if _stop_requested.is_set():
        action()
    try:
        yield
    finally:
        _on_stop.remove(action)


def stop_requested() -> bool:
    """Whether SIGTERM has come while somebody was ``stopping``."""
    return _stop_requested.is_set()


def pause(seconds: float) -> bool:
    """Sleep for so long; False where SIGTERM came first, as in ``stop_requested``."""
    return not _stop_requested.wait(seconds)


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        if not _on_stop:
            raise Retryable(STOPPED)
        _stop_requested.set()
        for action in [*_on_stop]:  # another thread may change it
            action()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop_requested.clear()
