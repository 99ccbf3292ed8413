"""What needs no cluster is done on one where there is one, and says the same there."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import ray

from ray_asd.build import Attempt, Outcome, Output, steps
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine import patience, where
from ray_asd.engine.apart import apart
from ray_asd.engine.graph import Engine
from ray_asd.engine.progress import silent
from ray_asd.engine.session import session
from ray_asd.errors import Retryable, StageError, Unplaced, UserError

pytestmark = pytest.mark.usefixtures("ray_session", "by_value")

Before = Callable[[Attempt], None]


def step(before: Before = lambda attempt: None, cpus: float = 1, **inputs: Step) -> Step:
    """Notes its process and those of its inputs, after doing something."""

    def work(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
        before(attempt)
        noted = [attempt.put("pid", str(os.getpid()).encode())]
        return Outcome(noted, {name: int(output.read("pid")) for name, output in given.items()})

    return Step("made", "x", 1, {"inputs": len(inputs)}, inputs, work, 1, Worker(cpus=cpus), on_ray=False)


def done(made: Step, root: Path) -> Output:
    return steps.ensure(apart(made, silent), str(root))


def test_it_is_one_task_of_its_worker(tmp_path: Path) -> None:
    output = done(step(cpus=2), tmp_path)
    assert int(output.read("pid")) != os.getpid()
    assert output.marker.held.cpus == 2


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UserError("no clips; allowed: some"), UserError, r"^no clips; allowed: some$"),
        (StageError("the bank is empty"), StageError, r"^the bank is empty$"),
        (ZeroDivisionError("by zero"), StageError, r"^made x: ZeroDivisionError: by zero$"),
    ],
)
def test_its_errors_are_those_of_the_work(
    tmp_path: Path, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail(attempt: Attempt) -> None:
        raise error

    with pytest.raises(kind, match=message) as caught:
        done(step(fail), tmp_path)
    assert type(caught.value) is kind


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    def die_once(attempt: Attempt) -> None:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert done(step(die_once), tmp_path / "root").read("pid")


def test_what_it_wrote_before_it_died_is_kept(tmp_path: Path) -> None:
    def die(attempt: Attempt) -> None:
        os.write(2, b"the last words of this process\n")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Retryable, match=r"^made x: \w+: ") as caught:
        done(step(die), tmp_path)
    assert "the last words" not in str(caught.value)
    assert ".err:\nthe last words of this process" in "".join(traceback.format_exception(caught.value))


def test_it_waits_for_its_place_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is left to be done later."""
    monkeypatch.setenv(patience.WAIT_VARIABLE, str(1 / 60))
    hold = ray.remote(num_cpus=2)(lambda: time.sleep(5)).remote()
    time.sleep(0.5)

    def touch(attempt: Attempt) -> None:
        (tmp_path / "done").touch()

    with pytest.raises(Unplaced, match=r"^made x: waited 0.0166667 minutes for 1 x \(1 CPU\); free are 0 CPU$"):
        done(step(touch), tmp_path / "root")
    ray.get(hold)
    assert done(step(cpus=2), tmp_path / "other").read("pid")
    assert not (tmp_path / "done").exists()


def test_where_there_is_a_cluster_nothing_is_done_in_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = step()
    above = step(below=below)
    for name, here in (("alone", True), ("cluster", False)):
        if not here:
            monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        with session(str(tmp_path / name / "session")) as bring:
            outputs = [bring(above)]
        engine = Engine(str(tmp_path / name / "graph"))
        engine.add(above)
        engine.run(lambda: None)
        outputs += [node.output for node in engine.nodes.values() if node.output and node.output.marker.inputs]
        assert len(outputs) == 2
        for output in outputs:
            pids = {int(output.read("pid")), output.marker.counts["below"]}
            assert (pids == {os.getpid()}) is here
            assert (os.getpid() in pids) is here
        assert (where.done("made", Worker(), lambda progress: os.getpid(), silent) == os.getpid()) is here
