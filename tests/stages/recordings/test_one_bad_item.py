"""What is odd costs itself: it is rejected or left out with its reason, the others go on, and nothing is no success."""

import json
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from data import damage
from ray_asd import cli, store, tables
from ray_asd.build import Output, archive, steps
from ray_asd.config import Audio, Worker
from ray_asd.data import audio
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.stages.recordings import augment, ingest
from ray_asd.tables import Folder
from stages import chain

pytestmark = pytest.mark.usefixtures("ray_session")
PRESS = {"layout": "flat", "machine_type": "press", "split": "train"}


def sound(seed: int, channels: int = 1) -> bytes:
    return audio.encode_wav(np.random.default_rng(seed).uniform(-0.5, 0.5, (2_000, channels)), 16_000)


def rejects(output: Output) -> dict[str, tuple[str, str]]:
    rows = output.table(Folder.REJECTS, tables.REJECTS).to_pylist()
    return {store.name(row["uri"]): (row["reason"], row["detail"]) for row in rows}


def clips(output: Output) -> dict[str, dict[str, Any]]:
    return {store.name(row["clip_id"]): row for row in output.table(Folder.CLIPS, tables.CLIPS).to_pylist()}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"])
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_archived_objects_are_rejected_and_the_others_taken(bucket: str, tmp_path: Path) -> None:
    name, _, prefix = f"{bucket}/press".removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    for key, kind in {"a": "STANDARD", "b": "GLACIER", "c": "STANDARD", "d": "DEEP_ARCHIVE"}.items():
        client.put_object(Bucket=name, Key=f"{prefix}/{key}.wav", Body=sound(ord(key)), StorageClass=kind)
    root = str(tmp_path / "root")
    output = steps.ensure(ingest.step(Source(f"{bucket}/press", **PRESS), Worker(), silent), root)
    assert set(clips(output)) == {"a.wav", "c.wav"}
    found = rejects(output)
    assert {reason for reason, _ in found.values()} == {"unreadable"}
    assert all("access denied (InvalidObjectState)" in detail for _, detail in found.values())
    assert set(found) == {"b.wav", "d.wav"}
    for key in "ac":
        client.delete_object(Bucket=name, Key=f"{prefix}/{key}.wav")
    nothing = ingest.step(Source(f"{bucket}/press", **PRESS), Worker(), silent)
    for _ in range(2):  # nothing is known of any of them, so nothing is kept
        with pytest.raises(UserError, match=r"^none of 2 recordings may be read, the first is .*/[bd]\.wav: .*denied"):
            steps.ensure(nothing, root)
    assert [found.uri for found in archive.outputs(root)] == [output.uri]


def test_streamed_recordings_are_taken_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streamed = {f"{number}.wav": data for number, data in enumerate(damage.streamed().values())}
    for name, data in {**streamed, "plain.wav": damage.PLAIN, "cut.wav": damage.PLAIN[:-9]}.items():
        store.write(str(tmp_path / "press" / name), data)
    given = ["ingest", str(tmp_path / "press"), "--out", str(tmp_path / "root"), "--split", "train"]
    given += ["--layout", "flat", "--machine-type", "press"]
    code, told = run(capsys, *given)
    refused = archive.outputs(str(tmp_path / "root"))[0]
    assert (code, told["counts"]["clips"], told["counts"]["reject_streamed"]) == (0, 1, len(streamed))
    assert all(
        "--accept streamed takes" in detail for reason, detail in rejects(refused).values() if reason == "streamed"
    )
    code, told = run(capsys, *given, "--accept", "streamed", "--pack")
    counts = told["counts"]
    assert (code, counts["clips"], counts["streamed"], counts["rejects"]) == (0, len(streamed) + 1, len(streamed), 1)
    assert counts["taken_over"] == len(streamed) + 2
    (taken,) = [output for output in archive.outputs(str(tmp_path / "root")) if output.uri == told["outputs"]["clips"]]
    assert {name for name, row in clips(taken).items() if row["streamed"]} == set(streamed)
    assert {row["num_samples"] for row in clips(taken).values()} == {4000}
    originals = steps.ensure(augment.originals(taken, Audio(), Worker(), silent), str(tmp_path / "root"))
    assert originals.marker.counts["samples"] == 4000 * (len(streamed) + 1)


def test_clips_without_the_channel_or_sound_on_it_are_left_out_of_the_training_set(tmp_path: Path) -> None:
    eight = np.random.default_rng(1).uniform(-0.5, 0.5, (2_000, 8))
    dead = eight.copy()
    dead[:, 5] = 0.1
    files = {"good.wav": sound(0, 8), "mono.wav": sound(2), "dead.wav": audio.encode_wav(dead, 16_000)}
    for name, data in files.items():
        store.write(str(tmp_path / "press" / name), data)
    root = str(tmp_path / "root")
    ingested = chain.ingested(str(tmp_path / "press"), root, **PRESS)
    assert {name: row["dead_channels"] for name, row in clips(ingested).items()} == {
        "good.wav": None, "mono.wav": None, "dead.wav": [5]
    }  # fmt: skip
    assert ingested.marker.counts["dead_channels"] == 1
    output = steps.ensure(augment.originals(ingested, Audio(channel=5), Worker(), silent), root)
    assert (output.marker.counts["clips"], output.marker.counts["left_out"]) == (1, 2)
    left = output.table(Folder.UNSCORED, tables.UNSCORED).to_pylist()
    assert {store.name(row["clip_id"]): row["reason"] for row in left} == {
        "mono.wav": "no_channel", "dead.wav": "dead_channel"
    }  # fmt: skip
    for channel, kept in ((0, 3), ("mean", 3), (6, 2)):
        whole = steps.ensure(augment.originals(ingested, Audio(channel=channel), Worker(), silent), root)
        assert whole.marker.counts["clips"] == kept


def test_nothing_taken_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing, listed = tmp_path / "nothing", tmp_path / "listed.csv"
    nothing.mkdir()
    listed.write_text("uri,machine_type,split\nX:\\night\\1.wav,press,test\n")
    for number, data in enumerate((b"", bytes(9000), damage.PLAIN[:30])):
        store.write(str(tmp_path / "bad" / f"{number}.flac"), data)
    flat = ["--layout", "flat", "--machine-type", "press", "--split", "train"]
    expected = {
        str(nothing): (flat, "no recording was taken: there is none"),
        str(listed): ([], "no recording was taken: missing 1 (the first is "),
        str(tmp_path / "bad"): (flat, "no recording was taken: not_audio 2 (the first is "),
    }
    for source, (options, why) in expected.items():
        for reused in (False, True):
            code, told = run(capsys, "ingest", source, "--out", str(tmp_path / "root"), *options)
            assert (code, told["status"], told["reused"], told["counts"]["clips"]) == (3, "gate", reused, 0)
            assert told["error"].startswith(why)
    assert "truncated 1" in told["error"]


def test_outputs_are_no_inputs_and_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, root = tmp_path / "plant", tmp_path / "plant" / "runs"
    for number in range(2):
        store.write(str(source / "night" / f"{number}.wav"), sound(number))
    given = ["ingest", str(source), "--layout", "flat", "--machine-type", "press", "--split", "train", "--out"]
    for reused in (False, True):
        code, told = run(capsys, *given, str(root))
        assert (code, told["reused"], told["counts"]["clips"], told["counts"]["rejects"]) == (0, reused, 2, 0)
    code, told = run(capsys, *given, str(source))
    assert (code, told["error"]) == (2, f"--out {source} is SRC itself; allowed: any other place, also one below it")
