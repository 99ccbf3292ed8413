"""Clips with the content of another clip: noted in CLIPS, or moved to REJECTS where they are not wanted.

An evaluation set must keep every clip, so nothing is dropped unasked. Only files that hold duplicates are written
again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_asd import store
from ray_asd.build import Attempt, File
from ray_asd.data.ingested import clip_counts, clips_table, reject, reject_counts, rejects_table
from ray_asd.tables import Folder

_READERS = 16


def noted(attempt: Attempt, files: Sequence[File], rejected: bool) -> tuple[list[File], Counter[str]]:
    """``files`` with duplicates marked by the first clip they equal, or ``rejected``; and how the counts change.

    The first is the one that is first by clip_id.
    """
    of_clips = sorted(file.path for file in files if file.path.startswith(f"{Folder.CLIPS}/"))
    with ThreadPoolExecutor(_READERS) as pool:
        first_of = _first_of(list(pool.map(lambda path: _read(attempt, path, ["clip_id", "content_hash"]), of_clips)))
    change: Counter[str] = Counter()
    if not first_of:
        return list(files), change
    written = {file.path: [file] for file in files}
    duplicates = pa.array(list(first_of))
    for path in of_clips:
        table = _read(attempt, path)
        copies = pc.is_in(table["clip_id"], duplicates)
        if pc.any(copies).as_py():
            rewrite = _rejected if rejected else _marked
            written[path], changed = rewrite(attempt, path, table, copies, first_of)
            change.update(changed)
    return [file for path in written for file in written[path]], change


def _first_of(parts: Sequence[pa.Table]) -> dict[str, str]:
    """By the clip_id of each duplicate, the one it equals."""
    if not parts:
        return {}
    clips = pa.concat_tables(parts)
    groups = clips.group_by("content_hash").aggregate([("clip_id", "count"), ("clip_id", "min")])
    groups = groups.filter(pc.greater(groups["clip_id_count"], 1))
    firsts = dict(zip(groups["content_hash"].to_pylist(), groups["clip_id_min"].to_pylist(), strict=True))
    several = clips.filter(pc.is_in(clips["content_hash"], groups["content_hash"].combine_chunks()))
    found = {row["clip_id"]: firsts[row["content_hash"]] for row in several.to_pylist()}
    return {clip: first for clip, first in found.items() if clip != first}


def _marked(
    attempt: Attempt, path: str, table: pa.Table, copies: pa.ChunkedArray, first_of: Mapping[str, str]
) -> tuple[list[File], Counter[str]]:
    rows = [row | {"duplicate_of": first_of.get(row["clip_id"])} for row in table.to_pylist()]
    return [attempt.put_table(_plain(path), clips_table(rows))], Counter(duplicates=pc.sum(copies).as_py())


def _rejected(
    attempt: Attempt, path: str, table: pa.Table, copies: pa.ChunkedArray, first_of: Mapping[str, str]
) -> tuple[list[File], Counter[str]]:
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
    return files, change


def _plain(path: str) -> str:
    """The path without what its content has added to it: ``clips/00000.parquet``."""
    return f"{path.partition('.')[0].partition('-')[0]}.parquet"


def _read(attempt: Attempt, path: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(store.join(attempt.uri, path))), columns=columns)
