"""What an earlier ingest has read is not read again, and what comes out is what a run from nothing writes."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_asd import store
from ray_asd.build import Output, steps
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data import audio, recordings
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.stages.recordings import ingest
from ray_asd.tables import CLIPS, REJECTS, Folder

CLIPS_BEFORE = 300


def name(number: int) -> str:
    return f"fan/train/section_00_source_train_normal_{number:04d}_m-n_W.wav"


def sound(seed: int) -> bytes:
    return audio.encode_wav(np.random.default_rng(seed).uniform(-0.5, 0.5, 2_000), 16_000)


def put(source: str, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        store.write(store.join(source, path), data)


def step(source: str, pack: bool = False, **options: Any) -> Step:
    return ingest.step(Source(source, **options), Worker(), silent, ingest.Options(pack=pack))


def read(output: Output) -> tuple[int, int]:
    """How many recordings were decoded, and of how many it was known what they are."""
    return output.marker.counts.get("decoded", 0), output.marker.counts.get("taken_over", 0)


def rows(output: Output) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = output.table(Folder.CLIPS, CLIPS).to_pylist()
    return found


def reasons(output: Output) -> dict[str, str]:
    return {store.name(row["uri"]): row["reason"] for row in output.table(Folder.REJECTS, REJECTS).to_pylist()}


def are_alike(one: Output, other: Output) -> bool:
    """Byte for byte, and in all that later stages depend on."""
    return (one.marker.files, one.marker.content) == (other.marker.files, other.marker.content)


@pytest.mark.usefixtures("ray_session")
def test_a_hundredth_that_is_new_is_all_that_is_read(root: str) -> None:
    source, before, anew = (store.join(root, part) for part in ("fans", "before", "anew"))
    old = {name(number): sound(number) for number in range(CLIPS_BEFORE)}
    old |= {name(7): old[name(3)], name(11): b"no sound", name(12): sound(12)[:-100]}
    put(source, old)
    first = steps.ensure(step(source), before)
    assert read(first) == (CLIPS_BEFORE, 0)

    new = {name(CLIPS_BEFORE): sound(0), name(CLIPS_BEFORE + 1): b"", name(CLIPS_BEFORE + 2): sound(999)}
    put(source, new)
    planned = step(source)
    from_nothing = steps.ensure(planned, anew)
    store.remove(source)
    put(source, new)  # whoever reads another one finds it missing
    output = steps.ensure(planned, before)
    assert (read(output), read(from_nothing)) == ((3, CLIPS_BEFORE), (CLIPS_BEFORE + 3, 0))
    assert are_alike(output, from_nothing)
    assert {row["clip_id"]: row["duplicate_of"] for row in rows(output) if row["duplicate_of"]} == {
        f"fans/{name(7)}": f"fans/{name(3)}",
        f"fans/{name(CLIPS_BEFORE)}": f"fans/{name(0)}",
    }
    numbers = {11: "not_audio", 12: "truncated", CLIPS_BEFORE + 1: "not_audio"}
    assert reasons(output) == {store.name(name(number)): reason for number, reason in numbers.items()}


@pytest.mark.usefixtures("ray_session")
def test_changed_renamed_and_removed_files(tmp_path: Path) -> None:
    source, roots = tmp_path / "fans", [str(tmp_path / root) for root in ("before", "anew")]
    put(str(source), {name(number): sound(number) for number in range(8)} | {name(8): b"?", name(9): b"?"})
    first = steps.ensure(step(str(source)), roots[0])
    put(str(source), {name(0): sound(100), name(8): sound(108), name(1): b"??"})
    (source / name(2)).rename(source / name(20))
    (source / name(3)).unlink()
    (source / name(9)).unlink()
    os.utime(source / name(4), (0, 0))
    output, from_nothing = (steps.ensure(step(str(source)), root) for root in roots)
    assert read(output) == (5, 3)  # the touched one too
    assert are_alike(output, from_nothing)
    assert not are_alike(output, first)
    assert reasons(output) == {store.name(name(1)): "not_audio"}
    put(str(source), {name(1): sound(101)})
    assert read(steps.ensure(step(str(source)), roots[0])) == (1, 7)
    other = steps.ensure(step(str(source), split="test", dataset="fans"), roots[0])
    assert read(other) == (0, 8)  # settings say nothing of a recording


@pytest.mark.usefixtures("ray_session")
def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    source, root = tmp_path / "fans", str(tmp_path / "root")
    put(str(source), {name(number): sound(number) for number in range(3)})
    kept = (source / name(1)).rename(tmp_path / "kept")
    (source / name(1)).symlink_to(kept)
    planned = step(str(source))
    away = kept.rename(tmp_path / "away")
    assert reasons(steps.ensure(planned, root)) == {store.name(name(1)): "missing"}
    away.rename(kept)
    put(str(source), {name(3): sound(3)})
    output = steps.ensure(step(str(source)), root)
    assert (read(output), reasons(output), len(rows(output))) == ((2, 2), {}, 4)
    was = kept.stat().st_mtime
    kept.write_bytes(sound(4))
    os.utime(kept, (was + 1, was + 1))
    changed = steps.ensure(step(str(source)), root)
    assert read(changed) == (1, 3)  # a link has not changed, but what it leads to
    assert not are_alike(changed, output)


@pytest.mark.usefixtures("ray_session")
def test_recordings_that_a_csv_file_names_in_folders_and_archives(tmp_path: Path, bucket: str) -> None:
    put(str(tmp_path), {"a.wav": sound(0), "b.wav": sound(1)})
    put(bucket, {"c.wav": sound(2), "d.wav": b"?"})
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("e.wav", sound(3))
    listed, uris = tmp_path / "list.csv", ["a.wav", f"{bucket}/c.wav", f"{bucket}/d.wav", "e.zip!/e.wav", "no.wav"]

    def outputs(*more: str) -> list[Output]:
        listed.write_text("\n".join(["uri,machine_type,split", *(f"{uri},fan,train" for uri in (*uris, *more))]))
        return [steps.ensure(step(str(listed)), str(tmp_path / root)) for root in ("before", f"anew{len(more)}")]

    assert [read(output) for output in outputs()] == [(4, 0), (4, 0)]
    output, from_nothing = outputs("b.wav")
    assert (read(output), read(from_nothing)) == ((1, 4), (5, 0))
    assert are_alike(output, from_nothing)
    assert reasons(output) == {"d.wav": "not_audio", "no.wav": "missing"}


@pytest.mark.usefixtures("ray_session")
def test_packs_are_filled_with_what_is_there_now(tmp_path: Path) -> None:
    source, root = str(tmp_path / "fans"), str(tmp_path / "root")
    put(source, {name(number): sound(number) for number in range(3)} | {name(3): b"?"})
    steps.ensure(step(source), root)
    put(source, {name(4): sound(4)})
    planned = step(source, pack=True)
    put(source, {name(0): sound(100)})
    packed = steps.ensure(planned, root)
    assert read(packed) == (2, 3)
    store.remove(source)
    assert [recordings.read(row) for row in rows(packed)] == [sound(seed) for seed in (100, 1, 2, 4)]


@pytest.mark.usefixtures("ray_session")
def test_nothing_is_known_from_other_code_or_damaged_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, root = str(tmp_path / "fans"), str(tmp_path / "root")
    put(source, {name(number): sound(number) for number in range(3)})
    oldest = steps.ensure(step(source), root)
    put(source, {name(3): sound(3)})
    newest = steps.ensure(step(source), root)
    (inspected,) = newest.files(Folder.INSPECTED)
    Path(newest.file_uri(inspected.path)).write_bytes(b"?")
    put(source, {name(4): sound(4)})
    assert read(steps.ensure(step(source), root)) == (2, 3)  # from the oldest
    put(source, {name(5): sound(5)})
    monkeypatch.setattr(ingest, "CODE_VERSION", oldest.marker.code_version + 1)
    assert read(steps.ensure(step(source), root)) == (6, 0)
