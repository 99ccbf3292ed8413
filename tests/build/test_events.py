"""The log of a run: what its stages say, kept below the root."""

import json
import threading
from pathlib import Path

import pytest

from ray_asd import build, store
from ray_asd.build import Attempt, Key, Outcome, events

KEY = Key("embed", "tiny", 1, {}, {})


def lines(root: str, run: str = "try") -> list[dict[str, object]]:
    return [json.loads(line) for line in store.read(f"{root}/{events.EVENTS}/{run}.jsonl").splitlines()]


def made(attempt: Attempt) -> Outcome:
    return Outcome([attempt.put("file", b"content")], {"clips": 3})


def test_a_stage_is_told_with_its_run_and_its_attempt(root: str) -> None:
    log = events.Log(root, "try", command="embed")
    with events.kept(log):
        output = build.run(root, KEY, made, units=3)
        assert build.run(root, KEY, made).reused
    log.end(status="done")
    said = lines(root)
    assert [line["event"] for line in said] == ["run begun", "stage begun", "stage done", "run ended"]
    assert {line["run"] for line in said} == {"try"}
    of_stage = {"stage": "embed", "output": output.uri, "attempt": output.marker.attempt}
    assert all(line.items() >= of_stage.items() for line in said[1:3])
    assert said[2]["counts"] == {"clips": 3}
    assert [str(line["time"]) for line in said] == sorted(str(line["time"]) for line in said)


def test_what_has_happened_is_kept_before_the_run_ends_and_nothing_without_a_run(tmp_path: Path) -> None:
    events.say("nobody listens")
    with events.kept(events.Log(str(tmp_path), "try")):
        assert not (tmp_path / events.EVENTS).exists(), "it may still be refused"
        events.say("stage begun")
        assert [line["event"] for line in lines(str(tmp_path))] == ["run begun", "stage begun"]
    events.say("nobody listens any more")
    assert len(lines(str(tmp_path))) == 2


def test_all_threads_of_a_run_say_something(tmp_path: Path) -> None:
    log = events.Log(str(tmp_path), "try")
    with events.kept(log):
        threads = [threading.Thread(target=events.say, args=(f"event {number}",)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log.end()
    assert sorted(str(line["event"]) for line in lines(str(tmp_path)))[:20] == sorted(f"event {n}" for n in range(20))


@pytest.mark.parametrize("root", ["", "file"])
def test_a_log_that_cannot_be_kept_ends_no_run(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    log = events.Log(root and str(tmp_path / root), "try")
    with events.kept(log):
        events.say("stage begun")
    log.end()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
