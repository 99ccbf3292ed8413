"""Kills processes at exact points of a write, each point once; Python imports this from PYTHONPATH, before all else.

``FAULTS`` holds lines of the form ``<event> <victim> <pattern>``: when this process, or a worker that inherited the
variable, is about to create a file by renaming or linking whose path matches the pattern (``re.search``), the victim
dies: ``self``, or ``driver`` and then itself. A folder named by ``FAULTS_DONE`` keeps which have happened.
"""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("os.rename", "os.link"):
        return
    for number, fault in enumerate(os.environ["FAULTS"].splitlines()):
        kind, victim, pattern = fault.split()
        if kind == event and re.search(pattern, str(arguments[1])) and _first_time(number):
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
