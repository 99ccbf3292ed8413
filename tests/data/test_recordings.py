"""Recordings by their CLIPS rows: loose or packed, checked against what was ingested, decoded ahead in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_asd import reasons
from ray_asd.data import audio, packs, recordings
from ray_asd.data.audio import BadAudio
from ray_asd.errors import StageError, UserError


def clip(folder: Path, name: str, seconds: float = 0.5) -> dict[str, Any]:
    noise = np.random.default_rng(len(name)).uniform(-0.5, 0.5, (round(16_000 * seconds), 2))
    path = folder / f"{name}.wav"
    path.write_bytes(audio.encode_wav(noise, 16_000))
    return {"uri": str(path), "content_hash": audio.content_hash(path.read_bytes()), "pack": None, "pack_row": None}


def packed(folder: Path, clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pack = folder / "pack.parquet"
    with packs.Writer(pack) as writer:
        rows = [writer.add(row["uri"], Path(row["uri"]).read_bytes()) for row in clips]
    return [row | {"pack": str(pack), "pack_row": number} for row, number in zip(clips, rows, strict=True)]


def test_loose_or_packed_is_the_same(tmp_path: Path) -> None:
    loose = [clip(tmp_path, "a" * length, 0.2 + length / 10) for length in range(1, 9)]
    heard = list(recordings.waveforms(loose, 1))
    for row, wave in zip(loose, heard, strict=True):
        np.testing.assert_array_equal(wave, audio.decode(Path(row["uri"]).read_bytes(), 1))
    inside = packed(tmp_path, loose)
    for row in loose:
        Path(row["uri"]).unlink()
    for threads in (1, 3):
        for wave, expected in zip(recordings.waveforms(inside, 1, threads), heard, strict=True):
            np.testing.assert_array_equal(wave, expected)


def test_what_is_not_as_it_was_is_named(tmp_path: Path) -> None:
    row = clip(tmp_path, "a")
    (inside,) = packed(tmp_path, [row])
    with pytest.raises(UserError, match=r"unknown channel \(of a recording with 2\) '5'; allowed: 0, 1, mean"):
        recordings.waveform(row, 5)
    path = Path(row["uri"])
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(StageError, match=rf"^{path}: the recording has changed since it was ingested; ingest it again"):
        recordings.waveform(row, 0)
    cut = row | {"content_hash": audio.content_hash(content[:-2])}
    with pytest.raises(BadAudio, match=rf"^truncated: {path}: the header promises"):
        recordings.waveform(cut, 0)
    path.unlink()
    with pytest.raises(BadAudio, match=rf"^missing: {path}$"):
        recordings.read(row)
    with pytest.raises(StageError, match=rf"^{inside['pack']}: the recording has changed"):
        recordings.read(inside | {"content_hash": "0" * 64})
    with pytest.raises(BadAudio, match=r"^missing: .*other\.parquet$"):
        recordings.read(inside | {"pack": str(tmp_path / "other.parquet")})


def test_what_holds_no_sound_is_told_apart_and_holds_up_no_other(tmp_path: Path) -> None:
    rows = [clip(tmp_path, "a" * length) | {"channels": 2, "dead_channels": None} for length in range(1, 6)]
    rows[1] |= {"channels": 1}
    rows[2] |= {"dead_channels": [0, 1]}
    rows[3] |= {"uri": str(tmp_path)}  # a folder by now
    for channel, lost in ((1, {1: "no_channel", 2: "dead_channel", 3: "recording_unreadable"}), ("mean", {3: ""})):
        heard = list(recordings.heard(rows, channel))
        found = {place: row for place, row in enumerate(heard) if isinstance(row, recordings.Unheard)}
        assert found.keys() == lost.keys()
        assert channel == "mean" or {place: row.reason for place, row in found.items()} == lost
        assert all(row.reason in reasons.UNSCORED and str(tmp_path) in row.detail for row in found.values())
    table = pa.Table.from_pylist([row | dict.fromkeys(("clip_id", "machine_type", "section"), "x") for row in rows])
    assert recordings.unscored(table, found)["reason"].to_pylist() == ["recording_unreadable"]


def test_an_error_comes_in_its_turn_and_nothing_is_read_far_ahead(tmp_path: Path) -> None:
    rows = [clip(tmp_path, "a" * length) for length in range(1, 40)]
    taken: list[int] = []

    def asked() -> Any:
        for number, row in enumerate(rows):
            taken.append(number)
            yield row if number != 20 else row | {"uri": str(tmp_path / "gone.wav")}

    heard = recordings.waveforms(asked(), 0)
    next(heard)
    assert len(taken) <= recordings.AHEAD + 1
    assert len([next(heard) for _ in range(19)]) == 19
    with pytest.raises(BadAudio, match=r"gone\.wav"):
        next(heard)


def test_what_waits_is_bounded_by_its_size() -> None:
    taken: list[int] = []

    def asked() -> Iterator[int]:
        for size in (3, 3, 5, 20, 1, 1):
            taken.append(size)
            yield size

    doubled = recordings.ahead(lambda size: 2 * size, asked(), 4, 10, lambda size: size)
    assert (next(doubled), taken) == (6, [3, 3, 5])
    assert (next(doubled), next(doubled), next(doubled), taken) == (6, 10, 40, [3, 3, 5, 20])  # it waits for none
    assert list(doubled) == [2, 2]
