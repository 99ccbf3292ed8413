"""Stages as a build: keys, commits, races and what a reader accepts; on disk and in an object store."""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ray_asd import build, store
from ray_asd.errors import StageError, UserError

CLIPS = build.Source(digest="d1", uri="s3://bucket/ingest/fleet-1")


def key(**changes: Any) -> build.Key:
    parts: dict[str, Any] = {"stage": "train", "name": "tiny", "code_version": 3, "config": {"steps": 10, "seed": 0}}
    return build.Key(**(parts | {"inputs": {"clips": CLIPS}} | changes))


def write_one(attempt: build.Attempt) -> build.Outcome:
    return build.Outcome(files=[attempt.put("data/a.bin", b"abc")], counts={"clips": 1})


def refuse(attempt: build.Attempt) -> build.Outcome:
    raise AssertionError("the stage was run again")


def test_the_digest_is_that_of_the_canonical_text() -> None:
    text = b'["train",3,{"seed":0,"steps":10},{"clips":"d1"}]'
    assert key().digest == hashlib.sha256(text).hexdigest()
    assert key().folder("s3://bucket/runs/") == f"s3://bucket/runs/train/tiny-{hashlib.sha256(text).hexdigest()[:12]}"


def test_the_digest_does_not_depend_on_places_order_or_the_name() -> None:
    moved = build.Source(digest="d1", uri="/elsewhere")
    for same in (key(inputs={"clips": moved}), key(config={"seed": 0, "steps": 10}), key(name="other")):
        assert same.digest == key().digest


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "embed"},
        {"code_version": 4},
        {"config": {"steps": 11, "seed": 0}},
        {"config": {"steps": 10}},
        {"inputs": {"clips": build.Source(digest="d2", uri=CLIPS.uri)}},
        {"inputs": {"recordings": CLIPS}},
        {"inputs": {}},
    ],
)
def test_each_part_changes_the_digest(change: Mapping[str, Any]) -> None:
    assert key(**change).digest != key().digest


def test_digests_refuse_numbers_that_equal_nothing() -> None:
    with pytest.raises(ValueError, match="JSON"):
        build.digest_of({"rate": float("nan")})


def test_a_stage_is_run_once(root: str) -> None:
    first = build.run(root, key(), write_one)
    second = build.run(root, key(), refuse)
    assert (first.reused, second.reused) == (False, True)
    assert first.marker == second.marker
    assert second.read("data/a.bin") == b"abc"
    assert second.source == build.Source(digest=key().digest, uri=key().folder(root))


def test_the_marker_tells_what_was_made_from_what(root: str) -> None:
    marker = build.run(root, key(), write_one).marker
    written = json.loads(store.read(store.join(key().folder(root), "marker.json")))
    assert build.Marker.model_validate(written) == marker
    file = {"path": "data/a.bin", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest(), "rows": None}
    assert written["files"] == [file]
    assert written["inputs"] == {"clips": {"digest": "d1", "uri": CLIPS.uri}}
    assert (written["config"], written["counts"]) == ({"steps": 10, "seed": 0}, {"clips": 1})
    assert {"numpy", "ray", "torch"} <= written["versions"].keys()


def test_readers_of_equal_content_share_their_work(root: str) -> None:
    output = build.run(root, key(), lambda attempt: build.Outcome(files=[], counts={}, content="same"))
    assert output.source.digest == "same"


def test_work_that_fails_leaves_no_marker(root: str) -> None:
    def fail(attempt: build.Attempt) -> build.Outcome:
        write_one(attempt)
        raise StageError("a disk is full")

    with pytest.raises(StageError, match="a disk is full"):
        build.run(root, key(), fail)
    assert build.find(key().folder(root)) is None
    assert build.run(root, key(), write_one).read("data/a.bin") == b"abc"


def _run(root: str, name: bytes, start: Barrier, results: "Queue[tuple[str, bool, bytes]]") -> None:
    def work(attempt: build.Attempt) -> build.Outcome:
        start.wait()  # both have looked for the marker and found none
        return build.Outcome(files=[attempt.put("a", name)], counts={})

    output = build.run(root, key(), work)
    results.put((output.marker.attempt, output.reused, output.read("a")))


def test_two_processes_commit_one_result(root: str) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_run, args=(root, name, start, results)) for name in (b"one", b"two")]
    for writer in writers:
        writer.start()
    (attempt, reused, content), (other_attempt, other_reused, other_content) = (results.get(timeout=120) for _ in "12")
    for writer in writers:
        writer.join()
    assert attempt == other_attempt
    assert content == other_content
    assert {reused, other_reused} == {False, True}
    assert store.folders(key().folder(root)) == [attempt]


def _die_before_the_commit(root: str) -> None:
    def work(attempt: build.Attempt) -> build.Outcome:
        write_one(attempt)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    build.run(root, key(), work)


def test_a_run_killed_before_its_commit_is_done_anew(root: str) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=_die_before_the_commit, args=(root,))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(store.folders(key().folder(root))) == 1
    assert build.find(key().folder(root)) is None
    output = build.run(root, key(), write_one)
    assert not output.reused
    assert len(store.folders(key().folder(root))) == 2
    assert output.read("data/a.bin") == b"abc"


def table_of(*names: str) -> pa.Table:
    return pa.table({"clip_id": list(names)})


def test_only_what_the_marker_lists_is_read(root: str) -> None:
    def work(attempt: build.Attempt) -> build.Outcome:
        files = [attempt.put_table(f"clips/{part}.parquet", table_of(part)) for part in ("b", "a")]
        attempt.put_table("clips/stray.parquet", table_of("stray"))
        attempt.put_table("clips-other/c.parquet", table_of("c"))
        return build.Outcome(files=files, counts={})

    output = build.run(root, key(), work)
    assert output.table("clips").column("clip_id").to_pylist() == ["a", "b"]
    assert [file.path for file in output.files("clips")] == ["clips/a.parquet", "clips/b.parquet"]
    for access in (output.read, output.fetch):
        with pytest.raises(StageError, match=r"lists no file 'clips/stray.parquet'"):
            access("clips/stray.parquet")


def test_a_table_without_files_is_empty(root: str) -> None:
    schema = table_of("a").schema
    output = build.run(root, key(), lambda attempt: build.Outcome(files=[], counts={}))
    assert output.table("rejects", schema).equals(schema.empty_table())


def test_changed_files_are_refused(root: str) -> None:
    output = build.run(root, key(), write_one)
    store.write(output.file_uri("data/a.bin"), b"abd")
    with pytest.raises(StageError, match=r"data/a.bin: its content is not what was committed"):
        output.read("data/a.bin")


def test_files_go_in_and_out_by_way_of_the_disk(root: str, tmp_path: Path) -> None:
    local = tmp_path / "weights"
    local.write_bytes(b"abc")
    output = build.run(root, key(), lambda attempt: build.Outcome([attempt.put_file("model/w", local)], {}))
    assert output.marker.files[0].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert output.fetch("model/w").read_bytes() == b"abc"


def test_resolve_takes_the_stages_asked_for(root: str) -> None:
    output = build.run(root, key(), write_one)
    assert build.resolve(f"{output.uri}/", "train", "augment").marker == output.marker
    with pytest.raises(UserError, match=rf"^{output.uri} is the output of 'train'; allowed: ingest, augment$"):
        build.resolve(output.uri, "ingest", "augment")
    with pytest.raises(UserError, match=rf"^{root}/none holds no finished stage .* a train or augment output$"):
        build.resolve(f"{root}/none", "train", "augment")


@pytest.mark.parametrize(
    ("part", "written", "message"),
    [
        ('"format": 1', '"format": 2', "format: Input should be 1"),
        ('"files"', '"objects"', "files: Field required"),
        ('"size": 3', '"size": "big"', "files: 0: size: Input should be a valid integer, .*"),
        ('"format": 1', '"format":', "Invalid JSON: .*"),
    ],
)
def test_markers_of_another_version_are_refused(root: str, part: str, written: str, message: str) -> None:
    output = build.run(root, key(), write_one)
    place = f"{output.uri}/marker.json"
    store.write(place, store.read(place).decode().replace(part, written).encode())
    with pytest.raises(StageError, match=f"^{place}: no marker of this version: {message}$"):
        build.run(root, key(), refuse)


def test_work_that_loses_its_ground_to_one_who_commits_takes_what_that_one_made(root: str) -> None:
    def overtaken(attempt: build.Attempt) -> build.Outcome:
        build.run(root, key(), write_one, resumable=True)
        raise StageError(f"{attempt.uri}/{build.RECEIPTS}/manifest: no such file")

    output = build.run(root, key(), overtaken, resumable=True)
    assert (output.reused, output.marker.counts) == (True, {"clips": 1})
    with pytest.raises(StageError, match="no such file"):
        build.run(root, key(name="other"), overtaken, resumable=True)
