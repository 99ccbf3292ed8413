"""Recordings in: real files of many kinds, each of them a clip or a reject, and what the digest depends on."""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import soundfile

from ray_asd import store, tables
from ray_asd.build import Output, steps
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data import audio, recordings
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.errors import UserError
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder
from stages import chain


def sound(rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    """Half a second of noise."""
    shape = (rate // 2, channels)
    file = io.BytesIO()
    noise = np.random.default_rng(rate + channels).uniform(-0.5, 0.5, shape)
    soundfile.write(file, noise, rate, subtype, format=container)
    return file.getvalue()


def wave(samples: np.ndarray, subtype: str) -> bytes:
    return audio.encode_wav(samples, 16_000, subtype)


TRAIN, TEST = "fan/train/section_00_source_train_normal_", "fan/test/section_00_target_test_anomaly_"
GOOD = {
    f"{TRAIN}0001_m-n_W.wav": (sound(), 16_000, 1),
    f"{TRAIN}0002_m-n_W.wav": (sound(48_000, 2, "PCM_24"), 48_000, 2),
    f"{TRAIN}0003_m-n_X.wav": (sound(8_000, 1, "FLOAT"), 8_000, 1),
    f"{TRAIN}0004_m-n_X.flac": (sound(44_100, 8, "PCM_16", "FLAC"), 44_100, 8),
    f"{TEST}0001_m-n_W.wav": (sound(22_050, 1, "PCM_U8"), 22_050, 1),
}
BAD = {
    f"{TRAIN}0010_m-n_W.wav": (b"ceci n'est pas un son", "not_audio"),
    f"{TRAIN}0011_m-n_W.wav": (sound()[:-2000], "truncated"),
    f"{TRAIN}0012_m-n_W.flac": (sound(44_100, 1, "PCM_16", "FLAC")[:-2000], "truncated"),
    f"{TRAIN}0013_m-n_W.wav": (wave(np.zeros(8_000), "PCM_16"), "silent"),
    f"{TRAIN}0014_m-n_W.wav": (wave(np.full(8_000, np.nan), "FLOAT"), "not_finite"),
    f"{TRAIN}0015_m-n_W.wav": (wave(np.ones(8), "PCM_16"), "too_short"),
    f"{TRAIN}0016_m-n_W.wav": (b"", "not_audio"),
    "fan/train/my best recording.wav": (sound(), "name_fits_no_layout"),
    "fan/notes.txt": (b"it was raining", "name_fits_no_layout"),
}
GONE = f"{TRAIN}0020_m-n_W.wav"  # between the listing and the reading
BESIDE = {
    "fan/attributes_00.csv": f"file_name,d1p,d1v\n{TRAIN}0001_m-n_W.wav,m-n,Z\n".encode(),
    "README.md": b"# Fans",
    ".DS_Store": b"?",
}


def put(folder: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def step(uri: str, **options: str) -> Step:
    return ingest.step(Source(uri, **options), Worker(), silent)


def rows(output: Output, folder: str = Folder.CLIPS) -> list[dict[str, Any]]:
    schema = tables.CLIPS if folder == Folder.CLIPS else tables.REJECTS
    table = output.table(folder, schema)
    assert table.schema.equals(schema)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@pytest.mark.usefixtures("ray_session")
def test_each_file_is_a_clip_or_a_reject(tmp_path: Path) -> None:
    good, bad = ({name: entry[0] for name, entry in files.items()} for files in (GOOD, BAD))
    source = put(tmp_path / "fans", good | bad | BESIDE | {GONE: sound()})
    planned = step(source)
    (tmp_path / "fans" / GONE).unlink()
    output = steps.ensure(planned, str(tmp_path / "root"))

    clips = {row["clip_id"]: row for row in rows(output)}
    assert set(clips) == {f"fans/{name}" for name in GOOD}
    for name, (data, rate, channels) in GOOD.items():
        clip = clips[f"fans/{name}"]
        found = (clip["sample_rate"], clip["channels"], clip["num_samples"], clip["size_bytes"], clip["content_hash"])
        assert found == (rate, channels, rate // 2, len(data), audio.content_hash(data))
        assert (clip["uri"], clip["dataset"]) == (store.join(source, name), "fans")
    rejects = {row["uri"]: row for row in rows(output, Folder.REJECTS)}
    expected = {name: reason for name, (_, reason) in BAD.items()} | {GONE: "missing"}
    assert {uri: row["reason"] for uri, row in rejects.items()} == {
        store.join(source, name): reason for name, reason in expected.items()
    }
    sizes = {store.join(source, name): len(data) for name, data in bad.items()}
    assert all(row["size_bytes"] == sizes.get(uri) and row["detail"] for uri, row in rejects.items())
    counts = output.marker.counts
    assert (counts["clips"], counts["rejects"], counts["train"], counts["test"]) == (5, 10, 4, 1)
    assert (counts["reject_truncated"], counts["test_samples"]) == (2, 11_025)
    assert output.marker.units == 15

    first, second = (clips[f"fans/{TRAIN}000{number}_m-n_W.wav"] for number in (1, 2))
    assert (first["attributes"], first["condition"]) == ([("m-n", "Z")], "fan|m-n=Z")  # the CSV counts first
    assert (second["attributes"], second["condition"]) == ([("m-n", "W")], "fan|m-n=W")
    tested = clips[f"fans/{TEST}0001_m-n_W.wav"]
    assert (tested["split"], tested["label"], tested["domain"], tested["section"]) == (
        "test",
        "anomaly",
        "target",
        "00",
    )


@pytest.mark.usefixtures("ray_session")
def test_a_flat_folder(tmp_path: Path) -> None:
    source = put(tmp_path / "pump", {"monday/a.wav": sound(), "b.flac": sound(8_000, 1, "PCM_16", "FLAC")})
    planned = step(source, layout="flat", machine_type="pump", split="train", dataset="plant 7")
    found = rows(steps.ensure(planned, str(tmp_path / "root")))
    assert [row["clip_id"] for row in found] == ["plant 7/b.flac", "plant 7/monday/a.wav"]
    assert {(row["machine_type"], row["split"], row["label"], row["condition"]) for row in found} == {
        ("pump", "train", "normal", "pump")
    }


@pytest.mark.usefixtures("ray_session")
def test_a_csv_file_names_recordings_anywhere(tmp_path: Path, bucket: str) -> None:
    put(tmp_path, {"list/a.wav": sound(), "elsewhere/b.wav": sound(8_000)})
    store.write(store.join(bucket, "c.wav"), sound(48_000))
    uris = ["a.wav", str(tmp_path / "elsewhere" / "b.wav"), store.join(bucket, "c.wav"), "no.wav", f"{bucket}/no.wav"]
    lines = ["uri,machine_type,split,load", *(f"{uri},fan,train,{load}" for load, uri in enumerate(uris))]
    listed = tmp_path / "list" / "mine.csv"
    listed.write_text("\n".join(lines))
    output = steps.ensure(step(str(listed)), str(tmp_path / "root"))
    found = {row["condition"]: (row["clip_id"], row["uri"], row["sample_rate"]) for row in rows(output)}
    assert found == {
        "fan|load=0": ("mine/a.wav", str(tmp_path / "list" / "a.wav"), 16_000),
        "fan|load=1": (f"mine{uris[1]}", uris[1], 8_000),
        "fan|load=2": (f"mine/{uris[2].removeprefix('s3://')}", uris[2], 48_000),
    }
    missing = {row["uri"]: row["reason"] for row in rows(output, Folder.REJECTS)}
    assert missing == {str(tmp_path / "list" / "no.wav"): "missing", uris[4]: "missing"}


@pytest.mark.usefixtures("ray_session")
def test_only_new_content_is_new_to_later_stages(tmp_path: Path) -> None:
    source = put(tmp_path / "fans", {name: data for name, (data, _, _) in GOOD.items()})
    root = str(tmp_path / "root")
    first = steps.ensure(step(source), root)
    assert steps.ensure(step(source), root).reused
    touched = f"{source}/{TRAIN}0001_m-n_W.wav"
    os.utime(touched, (0, 0))
    again = steps.ensure(step(source), root)
    assert (again.reused, again.uri == first.uri) == (False, False)
    assert again.source.digest == first.source.digest
    shutil.copytree(source, tmp_path / "moved")
    moved = steps.ensure(step(str(tmp_path / "moved"), dataset="fans"), root)
    assert moved.source.digest == first.source.digest
    Path(touched).write_bytes(sound(16_000, 2))
    changed = steps.ensure(step(source), root)
    assert changed.source.digest != first.source.digest


@pytest.mark.usefixtures("ray_session")
def test_packs_hold_every_byte_and_change_no_content(root: str, tmp_path: Path) -> None:
    good = {name: data for name, (data, _, _) in GOOD.items()}
    source = put(tmp_path / "fans", good | {f"{TRAIN}0010_m-n_W.wav": b"ceci n'est pas un son"})
    loose, packed = (
        steps.ensure(ingest.step(Source(source), Worker(), silent, ingest.Options(pack=pack)), root)
        for pack in (False, True)
    )
    assert (packed.uri == loose.uri, packed.source.digest == loose.source.digest) == (False, True)
    found = rows(packed)
    assert [row | {"pack": None, "pack_row": None} for row in found] == rows(loose)
    assert rows(packed, Folder.REJECTS) == rows(loose, Folder.REJECTS)
    shutil.rmtree(source)
    for row in found:
        assert recordings.read(row) == good[row["clip_id"].removeprefix("fans/")]
    (pack,) = packed.files("packs")
    assert {row["pack"] for row in found} == {packed.file_uri(pack.path)}


@pytest.mark.usefixtures("ray_session")
def test_duplicates_are_noted_and_rejected_on_request(tmp_path: Path) -> None:
    copies = {f"{TRAIN}0005_m-n_W.wav": sound(), f"{TRAIN}0006_m-n_W.wav": sound(), f"{TEST}0002_m-n_W.wav": sound()}
    source = put(tmp_path / "fans", {name: data for name, (data, _, _) in GOOD.items()} | copies)
    noted, rejected = (
        steps.ensure(
            ingest.step(Source(source), Worker(), silent, ingest.Options(reject_duplicates=on)), str(tmp_path / "root")
        )
        for on in (False, True)
    )
    first = f"fans/{TEST}0002_m-n_W.wav"  # by clip_id
    same = {f"fans/{TRAIN}000{number}_m-n_W.wav" for number in (1, 5, 6)}
    assert {row["clip_id"]: row["duplicate_of"] for row in rows(noted) if row["duplicate_of"]} == dict.fromkeys(
        same, first
    )
    assert (noted.marker.counts["clips"], noted.marker.counts["duplicates"], noted.marker.counts["train"]) == (8, 3, 6)
    plain = {row["clip_id"] for row in rows(noted)} - same
    assert {row["clip_id"] for row in rows(rejected)} == plain
    gone = {row["uri"]: (row["reason"], row["detail"]) for row in rows(rejected, Folder.REJECTS)}
    assert gone == {
        store.join(source, name.removeprefix("fans/")): ("duplicate", f"the content of {first}") for name in same
    }
    counts = rejected.marker.counts
    assert (counts["clips"], counts["rejects"], counts["reject_duplicate"]) == (5, 3, 3)
    assert (counts["train"], counts["test"], "duplicates" in counts) == (3, 2, False)
    assert rejected.source.digest != noted.source.digest


FILES = int(os.environ.get("INGEST_FILES", "300"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_killed_and_submitted_again(tmp_path: Path) -> None:
    """The driver, by SIGKILL, once some shards are done."""
    source = tmp_path / "fans" / "fan" / "train"
    source.mkdir(parents=True)
    for number in range(FILES):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 2_000)
        name = f"section_00_source_train_normal_{number:04d}_m-n_W.wav"
        (source / name).write_bytes(wave(noise, "PCM_16")[: None if number % 9 else -100])
    roots = [str(tmp_path / name) for name in ("killed", "undisturbed")]
    planned = step(str(tmp_path / "fans"))
    command = [Path(sys.executable).with_name("ray-asd"), "ingest", str(tmp_path / "fans"), "--out", roots[0]]
    receipts = Path(planned.key(roots[0]).folder(roots[0])) / "parts" / "receipts"
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as driver:
        while not list(receipts.glob("*.json")):
            assert driver.poll() is None, "it ended too early"
            time.sleep(0.005)
        driver.kill()
    assert not (receipts.parent.parent / "marker.json").exists()
    found = []
    for root in roots:
        output = steps.ensure(planned, root)
        assert not output.reused
        found.append((rows(output), rows(output, Folder.REJECTS), output.marker.counts))
    assert found[0] == found[1]
    assert found[0][2]["rejects"] == -(-FILES // 9)


@pytest.mark.usefixtures("ray_session")
def test_machine_and_time_come_from_a_pattern_as_from_a_csv_file(tmp_path: Path) -> None:
    source = put(tmp_path / "plant", {"pump/p1/20261125T010000.wav": sound(), "fan/f7/20261125T020000.wav": sound()})
    lines = (
        "uri,machine_type,machine_id,recorded_at,split",
        "plant/pump/p1/20261125T010000.wav,pump,p1,2026-11-25T01:00Z,test",
        "plant/fan/f7/20261125T020000.wav,fan,f7,2026-11-25T02:00Z,test",
    )
    listed = put(tmp_path / "csv", {"list.csv": "\n".join(lines).replace("plant/", f"{source}/").encode()})

    def told(planned: Step) -> list[tuple[str, ...]]:
        clips = rows(steps.ensure(planned, str(tmp_path / "root")))
        return [tuple(str(row[name]) for name in ("machine_type", "machine_id", "recorded_at")) for row in clips]

    full = told(step(source, pattern="{machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav", split="test"))
    assert full == [("fan", "f7", "2026-11-25 02:00:00+00:00"), ("pump", "p1", "2026-11-25 01:00:00+00:00")]
    assert sorted(told(step(f"{listed}/list.csv"))) == full
    timeless = told(step(source, pattern="{machine_type}/{machine_id}/*.wav", split="test"))
    assert timeless == [(*machine, "None") for *machine, _ in full]


def test_what_cannot_be_a_source(tmp_path: Path) -> None:
    flat = put(tmp_path / "flat", {"a.wav": sound()})
    listed = put(tmp_path / "csv", {"a.csv": b"uri,machine_type\na.wav,fan\n"})
    wrong: list[tuple[str, dict[str, str], str]] = [
        (f"{flat}/nowhere", {}, "nothing is there"),
        (flat, {"layout": "dcase1999"}, "unknown layout 'dcase1999'; allowed: auto, dcase2020"),
        (flat, {"layout": "csv"}, "is a folder"),
        (flat, {}, "no layout fits.*name the layout"),
        (flat, {"layout": "flat", "split": "train"}, "machine type"),
        (flat, {"layout": "flat", "machine_type": "fan"}, "the split is not named"),
        (f"{listed}/a.csv", {"layout": "flat"}, "is a file; layout flat takes a folder"),
        (f"{listed}/a.csv", {}, "line 2: the split is not named"),
    ]
    for uri, options, message in wrong:
        with pytest.raises(UserError, match=message) as caught:
            step(uri, **options)
        assert "\n" not in str(caught.value)


def test_the_fleet_is_whole(system: chain.Chain) -> None:
    counts = system.clips.marker.counts
    assert (counts["clips"], counts["rejects"], counts["train"], counts["test"]) == (64, 0, 40, 24)
    assert len({row["clip_id"] for row in rows(system.clips)}) == 64
