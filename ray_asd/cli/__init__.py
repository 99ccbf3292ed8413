"""The command line: parse, call one stage, say what was written. No logic of the method lives here.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 done, but a gate tripped, 75 try again.
"""

import sys
from pathlib import Path

from ray_asd.cli.app import cli
from ray_asd.cli.console import run

from ray_asd.cli import demo, simulation, data, training, detection, results  # isort: skip
from ray_asd.cli import fleet, nightly, alerts, morning, upkeep  # isort: skip

__all__ = [
    "alerts",
    "cli",
    "data",
    "demo",
    "detection",
    "fleet",
    "job",
    "main",
    "morning",
    "nightly",
    "results",
    "simulation",
    "training",
    "upkeep",
]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``ray-asd``."""
    run(cli, "ray-asd", arguments)


def job(script: str) -> None:
    """Entry point of ``jobs/NAME.py``: the command of that name, with the arguments of the process."""
    main([Path(script).stem, *sys.argv[1:]])
