"""Clips with the content of another clip: noted in CLIPS, or moved to REJECTS where they are not wanted.

An evaluation set must keep every clip, so nothing is dropped unasked. Only files that hold duplicates are written
again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_asd import store, tables
from ray_asd.build import Attempt, File
from ray_asd.data import recordings
from ray_asd.data.ingested import clip_counts, reject, reject_counts, rejects_table
from ray_asd.data.spooled import Spooled
from ray_asd.tables import Folder

_READERS = 16
_CLIPS = pa.schema([("content_hash", pa.string()), ("clip_id", pa.string()), ("file", pa.int64())])
_COPIES = pa.schema([("file", pa.int64()), ("clip_id", pa.string()), ("first", pa.string())])


def noted(attempt: Attempt, files: Sequence[File], rejected: bool) -> tuple[list[File], Counter[str]]:
    """``files`` with duplicates marked by the first clip they equal, or ``rejected``; and how the counts change.

    The first is the one that is first by clip_id.
    """
    of_clips = sorted(file.path for file in files if file.path.startswith(f"{Folder.CLIPS}/"))
    rewrite = _rejected if rejected else _marked
    again: dict[str, list[File]] = {}
    change: Counter[str] = Counter()
    found = _by_file(_copies(attempt, of_clips), of_clips)
    for path, written, changed in recordings.ahead(lambda each: rewrite(attempt, *each), found, _READERS, _READERS):
        again[path] = written
        change.update(changed)
    return [each for file in files for each in again.get(file.path, [file])], change


def _copies(attempt: Attempt, paths: Sequence[str]) -> Spooled:
    """Each clip that has the content of an earlier one, with the first of these, in order of the clips' files."""
    clips = Spooled(_CLIPS)
    parts = recordings.ahead(lambda path: _read(attempt, path, _CLIPS.names[:2]), paths, _READERS, _READERS)
    for number, part in enumerate(parts):
        numbers = pa.array(np.full(part.num_rows, number))
        clips.write(part.select(_CLIPS.names[:2]).append_column("file", numbers).cast(_CLIPS))
    found = Spooled(_COPIES)
    before: tuple[str | None, str | None] = None, None  # content of the last clip, and the first clip that has it
    for table in clips.in_order("clip_id").in_order("content_hash").tables():
        hashes, clip_ids = (table[name].combine_chunks() for name in _CLIPS.names[:2])
        is_copy = pc.fill_null(pc.equal(hashes, _shifted(before[0], hashes[:-1])), False)
        starts = np.where(is_copy.to_numpy(zero_copy_only=False), 0, np.arange(1, len(hashes) + 1))
        firsts = _shifted(before[1], clip_ids).take(pa.array(np.maximum.accumulate(starts)))
        found.write(pa.table([table["file"], clip_ids, firsts], schema=_COPIES).filter(is_copy))
        before = hashes[-1].as_py(), firsts[-1].as_py()
    return found.in_order("file")


def _shifted(first: str | None, rest: pa.Array) -> pa.Array:
    return pa.concat_arrays([pa.array([first], pa.string()), rest])


def _by_file(copies: Spooled, paths: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each of the files that hold copies, with what these are copies of."""
    for number, rows in groupby(copies.rows(), itemgetter("file")):
        yield paths[number], {row["clip_id"]: row["first"] for row in rows}


def _marked(attempt: Attempt, path: str, first_of: dict[str, str]) -> tuple[str, list[File], Counter[str]]:
    table = _read(attempt, path)
    found = [first_of.get(clip_id) for clip_id in table["clip_id"].to_pylist()]
    column = table.column_names.index("duplicate_of")
    table = table.set_column(column, tables.CLIPS.field("duplicate_of"), pa.array(found, pa.string()))
    return path, [attempt.put_table(_plain(path), table)], Counter(duplicates=len(first_of))


def _rejected(attempt: Attempt, path: str, first_of: dict[str, str]) -> tuple[str, list[File], Counter[str]]:
    table = _read(attempt, path)
    copies = pc.is_in(table["clip_id"], pa.array(list(first_of)))
    left, out = table.filter(pc.invert(copies)), table.filter(copies).to_pylist()
    rejects = [
        reject(row["uri"], "duplicate", f"the content of {first_of[row['clip_id']]}", row["size_bytes"]) for row in out
    ]
    files = [
        attempt.put_table(_plain(path).replace(Folder.CLIPS, f"{Folder.REJECTS}/duplicates", 1), rejects_table(rejects))
    ]
    if left.num_rows:
        files.append(attempt.put_table(_plain(path), left))
    change = reject_counts(rejects)
    change.subtract(clip_counts(out))
    return path, files, change


def _plain(path: str) -> str:
    """The path without what its content has added to it: ``clips/00000.parquet``."""
    return f"{path.partition('.')[0].partition('-')[0]}.parquet"


def _read(attempt: Attempt, path: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(store.join(attempt.uri, path))), columns=columns)
