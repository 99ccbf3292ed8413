"""Packed recordings: Parquet files of about 128 MB in place of thousands of small objects, byte for byte as they were.

Rows lie in groups that are read at once: few requests instead of one per recording, and bounded memory.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from ray_asd import store, tables

PACK_BYTES = 128 << 20  # of recordings in one file
GROUP_ROWS = 32
GROUP_BYTES = 16 << 20
_reading = threading.Lock()  # one file object serves all threads of a process


def cuts(sizes: Iterable[int], most_rows: int) -> Iterator[int]:
    """How many of a run of recordings of these ``sizes`` in bytes go into each pack, ``most_rows`` at most."""
    rows = held = 0
    for size in sizes:
        if rows and (held + size > PACK_BYTES or rows >= most_rows):
            yield rows
            rows = held = 0
        rows += 1
        held += size
    if rows:
        yield rows


class Writer:
    """Writes recordings to one local file; what it holds in memory is one group."""

    def __init__(self, path: Path) -> None:
        # Recordings hardly compress, and their statistics would be copies of them.
        self._file = pq.ParquetWriter(
            path, tables.PACK, compression="none", use_dictionary=False, write_statistics=False
        )
        self._clip_ids: list[str] = []
        self._recordings: list[bytes] = []
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._file.close()

    def add(self, clip_id: str, recording: bytes) -> int:
        """Append one recording; returns its row."""
        if len(self._recordings) == GROUP_ROWS or sum(map(len, self._recordings)) + len(recording) > GROUP_BYTES:
            self._flush()
        self._clip_ids.append(clip_id)
        self._recordings.append(recording)
        self.rows += 1
        return self.rows - 1

    def _flush(self) -> None:
        if self._recordings:
            self._file.write_table(pa.table([self._clip_ids, self._recordings], schema=tables.PACK))
        self._clip_ids, self._recordings = [], []


def read(uri: str, row: int) -> bytes:
    """The recording in ``row`` of the pack at ``uri``. Neighbours in its group are kept for the next call.

    Raises:
        FileNotFoundError: there is no pack.
    """
    with _reading:
        starts = _group_starts(uri)
        group = bisect_right(starts, row) - 1
        recordings = _group(uri, group)
    recording: bytes = recordings[row - starts[group]].as_py()
    return recording


@lru_cache(maxsize=4)
def _open(uri: str) -> pq.ParquetFile:
    filesystem, path = store.arrow(uri)
    return pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True)


@lru_cache(maxsize=4)
def _group_starts(uri: str) -> list[int]:
    metadata = _open(uri).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(accumulate(sizes[:-1], initial=0))


@lru_cache(maxsize=2)
def _group(uri: str, group: int) -> pa.ChunkedArray:
    return _open(uri).read_row_group(group, columns=["recording"])["recording"]
