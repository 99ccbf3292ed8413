"""An ingest plans in batches: how large these are changes nothing, and what comes out is what it always was."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_asd import store
from ray_asd.build import Output, steps
from ray_asd.config import Worker
from ray_asd.data import audio, spooled
from ray_asd.data.listing import read_listing
from ray_asd.data.source import Source
from ray_asd.engine import receipts
from ray_asd.engine.progress import silent
from ray_asd.stages.recordings import ingest
from ray_asd.tables import Folder

VERSION = "237f70ab63aa9d87d4969c0c87340ab91ac70171c7e72ab65ac29cbf654aa0ab"
CONTENT = "77214cb6221b11d41eba1d0eb9203e99d064faeae9e77d7db84714f78f9005f1"
"""Of this source, by the version that held whole listings in memory."""


def sound(seed: int) -> bytes:
    samples = (np.arange(2_000) * (seed + 3) * 37) % 2001 - 1000
    return audio.encode_wav((samples / 32768).astype(np.float32), 16_000, "PCM_16")


def name(number: int) -> str:
    return f"section_00_source_train_normal_{number:04d}_vel_{number % 3}.wav"


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Folders and archives whose order as they are listed is not that of their clips, copies, and no recordings."""
    fleet = tmp_path / "fleet"
    (fleet / "fan" / "train").mkdir(parents=True)
    (fleet / "a.zzz" / "fan" / "train").mkdir(parents=True)
    for number in range(60):
        (fleet / "fan" / "train" / name(number)).write_bytes(b"?" if number == 7 else sound(number % 45))
    (fleet / "a.zzz" / "fan" / "train" / name(1)).write_bytes(sound(101))
    for number in range(5):
        (fleet / f"note{number}.txt").write_text("rain")
    (fleet / "fan" / "attributes_00.csv").write_text(f"file_name,d1p,d1v\nfan/train/{name(4)},vel,9\n")
    with zipfile.ZipFile(fleet / "a.zip", "w") as archive:
        for number in range(20, 0, -1):
            archive.writestr(f"valve/train/{name(number)}", sound(number))
    for path in fleet.rglob("*"):
        os.utime(path, (1, 1))
    return str(fleet)


def ingested(source: str, root: Path, **options: Any) -> Output:
    return steps.ensure(ingest.step(Source(source), Worker(), silent, ingest.Options(**options)), str(root))


def test_the_version_of_a_listing_is_what_it_was(source: str) -> None:
    assert read_listing(Source(source)).version == VERSION


@pytest.mark.usefixtures("ray_session")
def test_batches_of_any_size_give_the_same(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[list[str]] = []
    summed = receipts.Sum.__init__

    def noted(self: receipts.Sum, *given: Any) -> None:
        summed(self, *given)
        names.append(self.names)

    monkeypatch.setattr(receipts.Sum, "__init__", noted)
    whole = [ingested(source, tmp_path / "whole"), ingested(source, tmp_path / "whole", reject_duplicates=True)]
    for size, rows in (("_BATCH", 7), ("_RUN", 20), ("_OF_RUN", 3), ("_IN_MEMORY", 100)):
        monkeypatch.setattr(spooled, size, rows)
    monkeypatch.setattr(ingest, "_REJECTS_IN_FILE", 4)
    parts = [ingested(source, tmp_path / "parts"), ingested(source, tmp_path / "parts", reject_duplicates=True)]
    assert names[:2] == names[2:]
    assert whole[0].marker.content == CONTENT
    for one, other in zip(whole, parts, strict=True):
        assert (one.marker.content, one.marker.counts) == (other.marker.content, other.marker.counts)
        rejects = [output.table(Folder.REJECTS).to_pylist() for output in (one, other)]
        assert sorted(map(str, rejects[0])) == sorted(map(str, rejects[1]))
        files = [{file for file in output.marker.files if "/names" not in file.path} for output in (one, other)]
        assert files[0] == files[1]
    assert len(whole[0].files(Folder.REJECTS)) < len(parts[0].files(Folder.REJECTS))
    assert {store.name(row["uri"]) for row in whole[0].table(Folder.REJECTS).to_pylist()} >= {name(7), "note0.txt"}
