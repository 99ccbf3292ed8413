"""Packs: every recording comes back byte for byte, and what is read of a pack at once is bounded."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_asd import store, tables
from ray_asd.data import packs


def recordings(count: int, size: int) -> list[bytes]:
    random = np.random.default_rng(0)
    return [random.bytes(int(length)) for length in random.integers(1, size, count)]


def written(path: Path, contents: list[bytes]) -> list[int]:
    with packs.Writer(path) as writer:
        return [writer.add(f"clip {number}", content) for number, content in enumerate(contents)]


def test_bytes_come_back_as_they_were(root: str, tmp_path: Path) -> None:
    contents = [*recordings(100, 20_000), b"", b"\0" * 50_000]
    rows = written(tmp_path / "pack", contents)
    uri = store.join(root, "pack.parquet")
    store.upload(tmp_path / "pack", uri)
    assert rows == list(range(102))
    assert [packs.read(uri, row) for row in rows] == contents
    shuffled = np.random.default_rng(1).permutation(102)
    assert [packs.read(uri, int(row)) for row in shuffled] == [contents[row] for row in shuffled]


def test_a_pack_is_a_table_that_anything_reads(tmp_path: Path) -> None:
    contents = recordings(3, 100)
    written(tmp_path / "pack", contents)
    table = pq.read_table(tmp_path / "pack")
    assert table.schema.equals(tables.PACK)
    assert table.to_pylist() == [{"clip_id": f"clip {n}", "recording": content} for n, content in enumerate(contents)]


def test_groups_are_bounded_by_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "GROUP_BYTES", 1000)
    written(tmp_path / "pack", [b"x" * 10] * 70 + [b"y" * 400] * 3 + [b"z" * 5000] + [b"x"])
    metadata = pq.ParquetFile(tmp_path / "pack").metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [32, 32, 8, 1, 1, 1]  # 6 x 10 + 2 x 400 bytes; a third of 400 and one of 5000 go on their own
    assert packs.read(str(tmp_path / "pack"), 73) == b"z" * 5000


def test_the_same_recordings_make_the_same_pack(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, recordings(40, 1000))
    one, other = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("a", "b"))
    assert one == other


def test_where_a_run_of_recordings_is_cut() -> None:
    mib = 1 << 20
    assert list(packs.cuts([], 512)) == []
    assert list(packs.cuts([mib] * 128, 512)) == [128]
    assert list(packs.cuts([mib] * 129, 512)) == [128, 1]
    assert list(packs.cuts([500 * mib, 1, 500 * mib], 512)) == [1, 1, 1]  # never an empty one
    assert list(packs.cuts([1] * 1025, 512)) == [512, 512, 1]


def test_a_pack_that_is_gone(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        packs.read(store.join(root, "nowhere.parquet"), 0)
