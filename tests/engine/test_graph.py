"""The engine: every step once, as soon as its inputs are there; what fails holds up nothing else."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from ray_asd import build, store
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine import connection, graph, patience
from ray_asd.engine.graph import TRIES, Engine
from ray_asd.errors import Futile, Retryable, StageError, Unplaced, UserError

Make = Callable[[Attempt, Mapping[str, Output]], Outcome]


def nothing(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
    return Outcome([attempt.put("content", b"")], {})


def step(name: str, work: Make = nothing, on_ray: bool = False, worker: Worker = Worker(), **inputs: Step) -> Step:
    return Step("made", name, 1, {"name": name}, inputs, work, 1, worker=worker, on_ray=on_ray)


def run(engine: Engine) -> None:
    engine.run(lambda: None)


def states(engine: Engine) -> dict[str, str]:
    return {node.planned.step.name: node.state for node in engine.nodes.values()}


def test_shared_work_happens_once_and_inputs_come_first(tmp_path: Path) -> None:
    log: list[str] = []

    def logged(name: str) -> Make:
        return lambda attempt, inputs: log.append(name) or nothing(attempt, inputs)

    engine = Engine(str(tmp_path))
    for end in ("left", "right"):  # each cell builds its own Step objects
        base = step("base", logged("base"))
        engine.add(step(end, logged(end), base=step("middle", logged("middle"), base=base), other=base))
    run(engine)
    assert sorted(log) == ["base", "left", "middle", "right"]
    assert log.index("base") < log.index("middle") < min(log.index("left"), log.index("right"))
    assert set(states(engine).values()) == {"done"}

    again = Engine(str(tmp_path))
    base = step("base", logged("base"))
    uris = again.add(step("left", logged("left"), base=step("middle", base=base), other=base))
    assert again.to_do == []
    run(again)
    assert len(log) == 4
    assert [again.nodes[uri].output.uri for uri in uris] == uris[-1:]  # those below a finished step are left out


def test_a_failed_step_is_tried_again_and_takes_down_only_what_needs_it(tmp_path: Path) -> None:
    tries: list[float] = []

    def fails(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        tries.append(time.monotonic())
        raise StageError("the disk is on fire")

    def recovers(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise OSError("connection reset")
        return nothing(attempt, inputs)

    engine = Engine(str(tmp_path / "root"))
    bad = step("bad", fails)
    engine.add(step("needs bad", base=step("between", base=bad)))
    engine.add(step("shaky", recovers))
    engine.add(step("other"))
    run(engine)
    expected = {"bad": "failed", "between": "failed", "needs bad": "failed", "shaky": "done", "other": "done"}
    assert states(engine) == expected
    assert len(tries) == TRIES
    assert {node.error for node in engine.nodes.values() if node.state == "failed"} == {"the disk is on fire"}


@pytest.mark.parametrize("error", [UserError("no such thing; allowed: another"), Futile("the loss is nan at step 3")])
def test_what_would_end_in_the_same_way_is_not_tried_again(tmp_path: Path, error: Exception) -> None:
    tries: list[None] = []

    def refuses(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        tries.append(None)
        raise error

    engine = Engine(str(tmp_path))
    engine.add(step("wrong", refuses))
    run(engine)
    assert states(engine) == {"wrong": "failed"}
    assert len(tries) == 1


def failing(error: Exception, log: list[float], times: int = 1000) -> Make:
    """Work that fails so often, and notes when it was tried."""

    def work(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        log.append(time.monotonic())
        if len(log) <= times:
            raise error
        return nothing(attempt, inputs)

    return work


def test_a_mistake_of_the_program_fails_its_step_and_no_other(tmp_path: Path) -> None:
    """And leaves its traceback below the root."""
    log: list[float] = []
    engine = Engine(str(tmp_path))
    (broken,) = engine.add(step("broken", failing(ZeroDivisionError("by zero"), log)))
    engine.add(step("whole"))
    run(engine)
    assert states(engine) == {"broken": "failed", "whole": "done"}
    assert len(log) == 1
    node = engine.nodes[broken]
    assert (node.error, node.retryable) == ("ZeroDivisionError: by zero", False)
    (name,) = store.files(f"{tmp_path}/status")
    assert name.startswith("failed-made-broken-")
    record = json.loads(store.read(f"{tmp_path}/status/{name}"))
    assert (record["step"], record["error"], record["tries"]) == (broken, node.error, 1)
    assert "raise error" in record["traceback"]
    assert "failed" in record, "its time; when the step had begun is not known any more"
    assert "begun" not in record


def test_what_the_environment_broke_off_is_tried_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.2)
    lost = Retryable("the store is away")
    healed, never = list[float](), list[float]()
    engine = Engine(str(tmp_path))
    engine.add(step("healed", failing(lost, healed, times=3)))
    (gone,) = engine.add(step("gone", failing(lost, never)))
    run(engine)
    assert states(engine) == {"healed": "done", "gone": "failed"}
    assert engine.nodes[gone].retryable
    assert len(never) == graph.PATIENCE
    waits = [after - before for before, after in pairwise(healed)]
    assert all(waited >= 0.2 * 2**number for number, waited in enumerate(waits))


def test_tries_are_counted_anew_once_a_step_gets_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.0)
    engine = Engine(str(tmp_path))
    log: list[int] = []

    def slowly(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        log.append(len(log))
        engine.progress("train", min(len(log), 5), 10)
        raise StageError("again")

    engine.add(step("slow", slowly))
    run(engine)
    assert len(log) == 5 + TRIES - 1


def test_what_falls_back_does_not_get_further_by_coming_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.0)
    engine = Engine(str(tmp_path))
    log: list[int] = []

    def swings(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        log.append(len(log))
        engine.progress("train", 5 if len(log) % 2 else 1, 10)
        raise StageError("again")

    engine.add(step("swings", swings))
    run(engine)
    assert len(log) == TRIES


def test_what_got_no_place_has_waited_long_enough(tmp_path: Path) -> None:
    log: list[float] = []
    engine = Engine(str(tmp_path))
    (unplaced,) = engine.add(step("unplaced", failing(Unplaced("waited 5 minutes"), log)))
    run(engine)
    assert len(log) == 1
    assert engine.nodes[unplaced].retryable


def test_progress_belongs_to_the_step_that_makes_it(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path))
    seen: dict[str, tuple[str, str, int, int]] = {}

    def works(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        for done in range(4):
            engine.progress("train  loss 0.5", done, 4)
            time.sleep(0.05)
        (node,) = (node for node in engine.nodes.values() if node.planned.uri in attempt.uri)
        seen[node.planned.step.name] = (node.task, node.measured, node.done, node.total)
        assert node.seconds_left is not None
        assert 0 < node.seconds_left < 60
        return nothing(attempt, inputs)

    engine.add(step("one", works))
    engine.add(step("two", works))
    engine.progress("of nobody", 1, 2)
    run(engine)
    assert seen == dict.fromkeys(["one", "two"], ("train", "loss 0.5", 3, 4))
    assert all(node.seconds_left is None for node in engine.nodes.values())


@pytest.mark.usefixtures("ray_session")
def test_what_the_cluster_can_never_hold_is_refused_at_once(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path))
    engine.add(step("huge", on_ray=True, worker=Worker(cpus=3), base=step("small", on_ray=True)))
    with pytest.raises(UserError, match=r"^made huge needs 1 x \(3 CPU\); the cluster has 1 node of 2 CPU$"):
        run(engine)
    with pytest.raises(UserError, match=r"made huge needs 1 x \(3 CPU\)"):
        engine.at_once()
    assert not build.find(next(iter(engine.nodes)))


@pytest.mark.usefixtures("ray_session")
def test_how_many_run_at_once(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path))
    for number in range(5):
        engine.add(step(f"half {number}", on_ray=True, worker=Worker(cpus=0.5)))
    assert engine.at_once() == {"made": 4}
    run(engine)
    assert engine.at_once() == {}


@pytest.mark.usefixtures("ray_session")
def test_sigterm_waits_for_trainings_and_starts_nothing_more(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()

    def trains(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        engine.progress("train  loss 2.0", 1, 4)
        begun.set()
        assert released.wait(60)
        return nothing(attempt, inputs)

    training = Step("made", "training", 1, {}, {}, trains, 1, exclusive=True)
    engine = Engine(str(tmp_path))
    engine.add(step("after", base=training))

    def show() -> None:
        if begun.is_set() and not released.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            released.set()

    with connection._stoppable(), pytest.raises(StageError, match="stopped by SIGTERM"):
        engine.run(show)
    assert states(engine) == {"training": "done", "after": "waiting"}


@pytest.mark.usefixtures("ray_session")
def test_sigterm_waits_for_no_training_that_has_not_begun(tmp_path: Path) -> None:
    """Another process may hold its lease for hours."""
    begun = threading.Event()

    def waits(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
        begun.set()
        time.sleep(30)
        return nothing(attempt, inputs)

    engine = Engine(str(tmp_path))
    engine.add(Step("made", "training", 1, {}, {}, waits, 1, exclusive=True))
    asked: list[float] = []

    def show() -> None:
        if begun.is_set() and not asked:
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    with connection._stoppable(), pytest.raises(StageError, match="stopped by SIGTERM"):
        engine.run(show)
    assert states(engine) == {"training": "running"}
