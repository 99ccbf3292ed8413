"""Steps: what a plan lists, what is built, and how often."""

import multiprocessing
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest

from ray_asd import build, store
from ray_asd.build import Attempt, Outcome, Output, steps
from ray_asd.build.steps import Step
from ray_asd.errors import StageError, UserError
from s3_faults import through


class Bench:
    """Makes steps that note the order in which they are worked on."""

    def __init__(self) -> None:
        self.worked: list[str] = []

    def step(
        self, stage: str, content: str | None = None, config: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Step:
        def work(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
            self.worked.append(stage)
            text = "+".join([stage, *(output.read("text").decode() for output in given.values())])
            return Outcome([attempt.put("text", text.encode())], {}, content=content)

        return Step(stage, "x", 1, config or {}, inputs, work, units=1)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def diamond(bench: Bench) -> Step:
    top = bench.step("top")
    return bench.step("bottom", left=bench.step("left", top=top), right=bench.step("right", top=top))


def test_a_step_goes_to_no_worker(bench: Bench) -> None:
    with pytest.raises(TypeError, match="^step x of top stays in its driver$"):
        pickle.dumps(bench.step("top"))


def planned(step: Step, root: str) -> list[tuple[str, bool]]:
    return [(entry.step.stage, entry.done is not None) for entry in steps.plan(step, root)]


def test_a_diamond_is_built_once_inputs_first(root: str, bench: Bench) -> None:
    step = diamond(bench)
    assert planned(step, root) == [("top", False), ("left", False), ("right", False), ("bottom", False)]
    output = steps.ensure(step, root)
    assert bench.worked == ["top", "left", "right", "bottom"]
    assert output.read("text") == b"bottom+left+top+right+top"
    assert not output.reused
    assert steps.ensure(step, root).reused
    assert len(bench.worked) == 4


def test_a_plan_says_where_and_leaves_out_what_a_finished_step_needed(tmp_path: Path, bench: Bench) -> None:
    root, step = str(tmp_path), diamond(bench)
    left = step.inputs["left"]
    assert isinstance(left, Step)
    made = steps.ensure(left, root)
    assert planned(step, root) == [("left", True), ("top", True), ("right", False), ("bottom", False)]
    places = {entry.step.stage: entry.uri for entry in steps.plan(step, root)}
    output = steps.ensure(step, root)
    assert (places["left"], places["bottom"]) == (made.uri, output.uri)
    assert planned(step, root) == [("bottom", True)]


def test_a_finished_step_does_not_ask_for_its_inputs_again(tmp_path: Path, bench: Bench) -> None:
    output = steps.ensure(diamond(bench), str(tmp_path))
    store.remove(output.marker.inputs["left"].uri)
    assert steps.ensure(diamond(bench), str(tmp_path)).uri == output.uri
    assert len(bench.worked) == 4


def test_an_output_is_an_input_as_it_is(tmp_path: Path, bench: Bench) -> None:
    elsewhere = steps.ensure(bench.step("top"), str(tmp_path / "one"))
    assert steps.ensure(elsewhere, str(tmp_path / "two")) is elsewhere
    below = bench.step("left", top=elsewhere)
    output = steps.ensure(below, str(tmp_path / "two"))
    assert output.marker.inputs["top"] == elsewhere.source
    assert planned(below, str(tmp_path / "two")) == [("left", True)]
    assert bench.worked == ["top", "left"]


def test_inputs_of_equal_content_lead_to_one_output(tmp_path: Path, bench: Bench) -> None:
    root = str(tmp_path)
    first = steps.ensure(bench.step("left", top=bench.step("top", "same", {"listing": 1})), root)
    second = steps.ensure(bench.step("left", top=bench.step("top", "same", {"listing": 2})), root)
    assert second.uri == first.uri
    assert bench.worked == ["top", "left", "top"]


def test_work_that_fails_leaves_what_was_before_it(tmp_path: Path, bench: Bench) -> None:
    def fail(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
        raise StageError("the disk is full")

    step = Step("left", "x", 1, {}, {"top": bench.step("top")}, fail, units=1)
    with pytest.raises(StageError, match=r"the disk is full"):
        steps.ensure(step, str(tmp_path))
    assert planned(step, str(tmp_path)) == [("top", True), ("left", False)]


def test_each_marker_is_read_once(bucket: str, bench: Bench) -> None:
    """Of steps whose keys lead to the first one by 64 ways."""
    step = bench.step("top")
    for _ in range(6):
        step = bench.step("bottom", left=bench.step("left", top=step), right=bench.step("right", top=step))
    with through() as proxy:

        def reads(ask: Callable[[Step, str], Any]) -> float:
            before = proxy.statistics()[0]
            ask(step, bucket)
            return (proxy.statistics()[0] - before) / 2  # s3fs asks for the size first

        assert reads(steps.plan) == 19
        steps.ensure(step, bucket)
        assert len(bench.worked) == 19
        assert reads(steps.plan) == reads(steps.ensure) == 19


def test_what_another_process_makes_meanwhile_is_used(tmp_path: Path, bench: Bench) -> None:
    """It was not there when the keys were worked out."""

    def make(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
        steps.ensure(Bench().step("right"), str(tmp_path))
        return Outcome([attempt.put("text", b"left")], {})

    left = Step("left", "x", 1, {}, {}, make, units=1)
    assert steps.ensure(bench.step("bottom", left=left, right=bench.step("right")), str(tmp_path))
    assert bench.worked == ["bottom"]


def _alone(root: str, results: "Queue[tuple[str, bool]]") -> None:
    def work(attempt: Attempt, given: Mapping[str, Output]) -> Outcome:
        notes = store.join(root, "notes")
        store.write(store.join(notes, attempt.uri.rpartition("-")[2]), b"")
        time.sleep(1.5)
        assert len(store.files(notes)) == 1, "two of them work at once"
        assert attempt.fence is not None
        store.write(store.join(attempt.fence.folder, "checkpoints", "step-1"), b"a state between attempts")
        return Outcome([attempt.put("text", b"alone")], {})

    output = steps.ensure(Step("train", "x", 1, {}, {}, work, units=1, exclusive=True), root)
    results.put((output.marker.attempt, output.reused))


def test_an_exclusive_step_is_worked_on_by_one_while_others_wait(root: str) -> None:
    context = multiprocessing.get_context("spawn")
    results: Queue[tuple[str, bool]] = context.Queue()
    processes = [context.Process(target=_alone, args=(root, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert len({attempt for attempt, _ in found}) == 1
    assert sorted(reused for _, reused in found) == [False, True]
    (folder,) = store.folders(store.join(root, "train"))
    assert store.folders(store.join(root, "train", folder)) == [found[0][0]]  # the state is gone with its use
    assert build.resolve(store.join(root, "train", folder), "train").read("text") == b"alone"


def test_what_can_be_told_before_is_told_of_every_step_that_is_to_be_made(tmp_path: Path, bench: Bench) -> None:
    root, asked = str(tmp_path), list[str]()

    def check(name: str) -> None:
        asked.append(name)
        if name == "right":
            raise UserError("not to be made")

    step = diamond(bench)
    inputs = {name: replace(given, check=partial(check, name)) for name, given in step.inputs.items()}
    step = replace(step, inputs=inputs)
    steps.ensure(step.inputs["left"], root)
    with pytest.raises(UserError, match="not to be made"):
        steps.check(steps.plan(step, root))
    assert asked == ["right"]
    assert bench.worked == ["top", "left"]
