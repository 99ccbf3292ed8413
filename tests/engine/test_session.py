"""A session starts Ray when the first step needs it, and never for what is there or needs none."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ray_asd.build import Attempt, Outcome, Output, steps
from ray_asd.build.estimates import estimates
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine.session import session

_SCRIPT = """
import sys
from ray_asd.build import Outcome
from ray_asd.engine.session import session
from ray_asd.build.steps import Step

def step(stage, on_ray, **inputs):
    def work(attempt, given):
        return Outcome([attempt.put("ray", str("ray" in sys.modules).encode())], {})
    return Step(stage, "x", 1, {}, inputs, work, units=1, on_ray=on_ray)

with session(sys.argv[1]) as bring:
    print(bring(step("here", False)).read("ray"), "ray" in sys.modules)
    print(bring(step("above", False, below=step("there", True))).read("ray"), sys.modules["ray"].is_initialized())
print(sys.modules["ray"].is_initialized())
"""


def step(stage: str, units: int, **changes: Any) -> Step:
    def work(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
        return Outcome([], {})

    parts = {"name": "x", "code_version": 1, "config": {"units": units}, "inputs": {}, "work": work, "on_ray": False}
    return Step(stage=stage, units=units, **(parts | changes))


@pytest.mark.usefixtures("ray_session")  # for its token
def test_ray_is_started_by_the_first_step_that_needs_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert first.stdout.splitlines() == ["b'False' False", "b'True' True", "False"], first.stderr


def test_estimates_come_from_what_has_run_before(tmp_path: Path) -> None:
    root = str(tmp_path)
    with session(root) as bring:
        done = bring(step("embed", 10))
    seconds = done.marker.seconds / 10
    larger = step("embed", 3600, worker=Worker(gpus=0.5), workers=4)
    (estimate,) = estimates(steps.plan(larger, root), root)
    assert estimate.planned.done is None
    assert estimate.hours == pytest.approx(seconds)
    assert estimate.gpu_hours == pytest.approx(seconds * 2)
    (unknown,) = estimates(steps.plan(step("score", 5), root), root)
    assert (unknown.hours, unknown.gpu_hours) == (None, None)
    (known,) = estimates(steps.plan(step("embed", 10), root), root)
    assert known.planned.done is not None
