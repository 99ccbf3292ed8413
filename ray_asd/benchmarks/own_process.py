"""What the benchmarks share whose steps have a process of their own; loads no torch, for drivers do not."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def last_line(
    module: str, *arguments: object, environment: Mapping[str, str] | None = None, folder: str | None = None
) -> str:
    """What a command of a module says last, run in ``folder``.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment, cwd=folder)
    return (done.stdout.splitlines() or [""])[-1]


def peak_mib() -> float:
    """The largest resident memory of this process so far; a child's ``ru_maxrss`` may be its parent's."""
    (found,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) / 1024
