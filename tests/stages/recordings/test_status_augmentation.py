"""The training set: every training clip decoded once, in every wanted speed, where its rows say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_asd import tables
from ray_asd.build import Output, steps
from ray_asd.config import Audio, Augmentation, Worker
from ray_asd.data import audio, recordings
from ray_asd.data.augment import change_speed
from ray_asd.engine.progress import silent
from ray_asd.errors import StageError, UserError
from ray_asd.stages.recordings import augment
from ray_asd.tables import Folder
from stages import chain

SAME = [
    name
    for name in tables.CLIPS.names
    if name in tables.TRAINING_SET.names and name not in ("clip_id", "num_samples", "condition")
]


def rows(output: Output, folder: str = Folder.TRAINING_SET) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in output.table(folder).to_pylist()}


def train_rows(clips: Output) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in rows(clips, "clips").items() if row["split"] == "train"}


def waveform(output: Output, row: dict[str, Any]) -> np.ndarray:
    shard = np.frombuffer(output.read(row["shard"]), "<f4")
    return shard[row["offset"] : row["offset"] + row["length"]]


def test_originals_are_the_decoded_training_clips(system: chain.Chain) -> None:
    output, expected = system.originals, train_rows(system.clips)
    assert output.table(Folder.TRAINING_SET).schema.equals(tables.TRAINING_SET)
    found = rows(output)
    assert set(found) == set(expected)
    for clip_id, row in found.items():
        own = [name for name in tables.CLIPS.names if name in tables.TRAINING_SET.names]
        assert {name: row[name] for name in own} == {name: expected[clip_id][name] for name in own}
        assert (row["parent_clip_id"], row["speed"], row["mode"]) == (None, 1.0, None)
        wave = recordings.waveform(row, 0)
        np.testing.assert_array_equal(waveform(output, row), wave)
        assert row["mean"] == pytest.approx(np.float64(wave).mean(), abs=1e-12)
        assert row["std"] == pytest.approx(np.sqrt(np.float64(wave).var() + 1e-7), rel=1e-12)


def test_shards_hold_nothing_else(system: chain.Chain) -> None:
    for output in (system.originals, system.variants):
        sizes = {file.path: file.size // 4 for file in output.files(Folder.WAVES)}
        taken = dict.fromkeys(sizes, 0)
        for row in sorted(rows(output).values(), key=lambda row: (row["shard"], row["offset"])):
            assert row["offset"] == taken[row["shard"]]
            taken[row["shard"]] += row["length"]
        assert taken == sizes
        assert sum(sizes.values()) == output.marker.counts["samples"]


def test_variants_are_new_classes_beside_their_parents(system: chain.Chain) -> None:
    parents, found = train_rows(system.clips), rows(system.variants)
    assert set(found) == {f"{parent}@resample0.9" for parent in parents}
    for row in found.values():
        parent = parents[row["parent_clip_id"]]
        assert {name: row[name] for name in SAME} == {name: parent[name] for name in SAME}
        assert (row["speed"], row["mode"]) == (0.9, "resample")
        assert row["condition"] == f"{parent['condition']}|speed=0.9|resample"
        wave = change_speed(recordings.waveform(row, 0), 0.9, "resample")
        np.testing.assert_array_equal(waveform(system.variants, row), wave)
        assert row["length"] == row["num_samples"] == round(32_000 / 0.9)


def test_every_speed_in_every_mode_with_the_labels_of_its_mode(system: chain.Chain) -> None:
    """A resampled clip is a class of its own, a stretched one its parent's."""
    output = steps.ensure(augment.variants(system.clips, Audio(), Augmentation(), Worker(), silent), system.root)
    parents, found = train_rows(system.clips), rows(output)
    kinds = [f"{mode}{speed}" for speed in (0.9, 1.1) for mode in ("resample", "stretch")]
    assert set(found) == {f"{parent}@{kind}" for parent in parents for kind in kinds}
    assert output.marker.counts["clips"] == output.marker.units == 4 * len(parents)
    for row in found.values():
        own_class = f"|speed={row['speed']}|resample" if row["mode"] == "resample" else ""
        assert row["condition"] == parents[row["parent_clip_id"]]["condition"] + own_class
    assert all(row["length"] == round(32_000 / row["speed"]) for row in found.values())


def test_equal_settings_share_one_stage(system: chain.Chain) -> None:
    def uri(audio: Audio = Audio(), **settings: Any) -> str:
        chosen = Augmentation(speeds=(0.9,), modes=("resample",), **settings)
        return (
            augment.variants(system.clips, audio, chosen, Worker(cpus=2), silent).key(system.root).folder(system.root)
        )

    assert uri() == system.variants.uri
    assert uri(label_policy="keep") != system.variants.uri
    assert uri(Audio(channel="mean")) != system.variants.uri


@pytest.mark.usefixtures("ray_session")
def test_wrong_clips_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "pump" / "train"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8_000, 2))
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(audio.encode_wav(noise, 16_000))
    root = str(tmp_path / "root")
    clips = chain.ingested(str(tmp_path / "pump"), root, layout="flat", machine_type="pump")
    step = augment.originals(clips, Audio(channel=2), Worker(), silent)
    with pytest.raises(UserError, match=r"^audio\.channel '2': none of 3 training clips has it, .*; allowed: "):
        steps.ensure(step, root)
    (folder / "b.wav").write_bytes(audio.encode_wav(noise / 2, 16_000))
    step = augment.originals(clips, Audio(), Worker(), silent)
    with pytest.raises(StageError, match=r"b\.wav: the recording has changed since it was ingested; ingest it again$"):
        steps.ensure(step, root)


@pytest.mark.usefixtures("ray_session")
def test_nothing_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "pump").mkdir()
    (tmp_path / "pump" / "a.wav").write_bytes(audio.encode_wav(np.random.default_rng(0).uniform(size=8_000), 16_000))
    clips = chain.ingested(str(tmp_path / "pump"), str(tmp_path), layout="flat", machine_type="pump", split="test")
    with pytest.raises(UserError, match=r"holds no training clips; allowed: CLIPS with split train$"):
        augment.originals(clips, Audio(), Worker(), silent)
