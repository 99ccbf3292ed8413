"""The work of ingest on one shard: each recording read and decoded once, unless an earlier ingest has done so."""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_asd import store
from ray_asd.build import Attempt, File
from ray_asd.data import audio, inspection, layouts, packs, recordings
from ray_asd.data.ingested import (
    clip_counts,
    clips_table,
    inspected_table,
    reject,
    reject_counts,
    rejects_table,
    unread,
)
from ray_asd.engine import cutting
from ray_asd.engine.receipts import Done
from ray_asd.errors import Rejected
from ray_asd.tables import CLIPS, Folder

_READERS = 8  # threads that wait for storage
_AHEAD_BYTES = 64 << 20  # of recordings that wait to be decoded
_OF_CLIPS = frozenset(CLIPS.names)
_STREAMED = "streamed"

_Row = dict[str, Any]
"""Of a listing, with the facts of ``inspection`` where they are known."""


class Check:
    """One shard of a manifest: each file becomes a CLIPS row, and goes into a pack if wanted, or a REJECTS row."""

    def __init__(self, dataset: str, pack: bool, accept: Collection[str]) -> None:
        self.dataset = dataset
        self.pack = pack
        self.accept = accept  # of reasons.ACCEPTABLE

    def __call__(self, shard: pa.Table, attempt: Attempt, name: str) -> Done:
        clips, rejected, inspected = list[_Row](), list[_Row](), list[_Row]()
        counts: Counter[str] = Counter()
        files: list[File] = []
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "pack"
            with packs.Writer(local) if self.pack else nullcontext() as pack:
                for row, read in self._contents(cutting.listed_in(shard, attempt).to_pylist()):
                    if isinstance(read, dict):
                        rejected.append(read)
                        continue
                    found, decoded = _inspected(row, read)
                    inspected.append(found)
                    counts["decoded" if decoded else "taken_over"] += 1
                    reason, detail = self._wrong(found)
                    if reason:
                        rejected.append(reject(found["uri"], reason, detail, found["size_bytes"]))
                        continue
                    pack_row = pack.add(found["clip_id"], read) if pack and read is not None else None
                    clips.append(self._clip(found) | {"pack_row": pack_row})
            if pack and clips:
                files.append(attempt.put_file(f"{Folder.PACKS}/{name}.parquet", local, pack.rows))
                place = store.join(attempt.uri, files[0].path)
                clips = [row | {"pack": place} for row in clips]
        made = {Folder.CLIPS: clips_table(clips), Folder.REJECTS: rejects_table(rejected)}
        made[Folder.INSPECTED] = inspected_table(inspected)
        files += [attempt.put_table(f"{kind}/{name}.parquet", table) for kind, table in made.items() if table.num_rows]
        return Done(files, dict(counts + clip_counts(clips) + reject_counts(rejected)))

    def _contents(self, rows: list[_Row]) -> Iterator[tuple[_Row, bytes | _Row | None]]:
        """Each row with its recording, a REJECTS row where that cannot be read, nothing where it need not be."""

        def size(row: _Row) -> int:
            return int(row["size"]) if self._is_needed(row) else 0

        return zip(rows, recordings.ahead(self._content, rows, _READERS, _AHEAD_BYTES, size), strict=True)

    def _content(self, row: _Row) -> bytes | _Row | None:
        if not self._is_needed(row):
            return None
        try:
            return recordings.at(row["uri"])
        except OSError as error:  # the file's own: what the environment does wrong is none here
            return unread(row["uri"], error, None)
        except Rejected as error:
            return reject(row["uri"], error.reason, error.detail, None)

    def _is_needed(self, row: _Row) -> bool:
        return row["content_hash"] is None or (self.pack and row["reason"] is None)

    def _wrong(self, found: _Row) -> tuple[str | None, str]:
        """Why it is none that is taken: what it holds, or that nobody asked for recordings of its kind."""
        if found["streamed"] and _STREAMED not in self.accept:
            return _STREAMED, f"its writer never filled in its size; --accept {_STREAMED} takes what is there"
        return found["reason"], found["detail"]

    def _clip(self, found: _Row) -> _Row:
        condition = layouts.condition(found["machine_type"], found["section"], dict(found["attributes"]))
        clip = {name: value for name, value in found.items() if name in _OF_CLIPS}
        return clip | {"dataset": self.dataset, "condition": condition}


def _inspected(row: _Row, recording: bytes | None) -> tuple[_Row, bool]:
    """``row`` with the facts of its recording, and whether that had to be decoded for them."""
    if recording is None or (row["content_hash"] and row["content_hash"] == audio.content_hash(recording)):
        return row, False
    return row | inspection.inspect(recording), True
