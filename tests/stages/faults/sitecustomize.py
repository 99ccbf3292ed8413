"""Faults at exact points of the program; Python imports this from PYTHONPATH, before all else.

``FAULTS`` holds lines of the form ``<event> <fault> <pattern>``, for this process and the workers that inherit it.

``os.rename`` and ``os.link``: about to create a file whose path matches the pattern (``re.search``), a process dies,
once: the fault is ``self``, or ``driver`` and then itself. A folder named by ``FAULTS_DONE`` keeps which have happened.

``open``: the fault is the name of an error, e.g. ``EIO``, or ``EIO@workers`` for all but the first process; opening a
matching path raises it while the folder named by ``FAULTS_ON`` holds a file of the fault's name. ``HANG`` is no error:
so long nothing comes back.
"""

import errno
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("os.rename", "os.link", "open"):
        return
    path = str(arguments[0] if event == "open" else arguments[1])
    for number, line in enumerate(os.environ["FAULTS"].splitlines()):
        kind, fault, pattern = line.split()
        if kind != event or not re.search(pattern, path):
            continue
        if event == "open":
            _fail(fault, path)
        elif _first_time(number):
            _kill(fault)


def _fail(fault: str, path: str) -> None:
    name, _, where = fault.partition("@")
    if where == "workers" and os.environ["FAULTS_DRIVER"] == str(os.getpid()):
        return
    switch = os.path.join(os.environ["FAULTS_ON"], fault)
    while name == "HANG" and os.path.exists(switch):
        time.sleep(0.05)
    if os.path.exists(switch):
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number), path)


def _kill(victim: str) -> None:
    if victim == "driver":
        os.kill(int(os.environ["FAULTS_DRIVER"]), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _first_time(number: int) -> bool:
    try:
        (Path(os.environ["FAULTS_DONE"]) / str(number)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if "FAULTS" in os.environ:
    os.environ.setdefault("FAULTS_DRIVER", str(os.getpid()))  # the first process of all
    sys.addaudithook(_watch)
