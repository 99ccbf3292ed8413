"""Recordings in: every file below a source becomes one row of CLIPS or one of REJECTS.

The stage is keyed by the listing, taken anew each time; what later stages depend on is the content of CLIPS without
its places, so that touched or moved files cause no new work after this stage.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from ray_asd import storage, tables
from ray_asd.build import Attempt, Outcome, digest_of
from ray_asd.config import Worker
from ray_asd.data import layouts
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.listing import Listing, Source, read_listing, reject
from ray_asd.errors import StageError
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 1
SHARD_FILES = 64
CLIPS = "clips"
REJECTS = "rejects"
_CONTENT = "content"  # among a shard's counts: the sum of its rows' digests
_PARSED = [field.name for field in fields(ParsedClip)]

_LISTED = pa.schema(
    [pa.field("uri", pa.string()), *(pa.field(n, tables.CLIPS.field(n).type) for n in ("clip_id", *_PARSED))]
)


def step(source: Source, worker: Worker, progress: Progress) -> Step:
    """The step that ingests ``source`` as it is now.

    Raises:
        UserError: nothing is there, no layout fits or two do, or a CSV file is malformed.
    """
    listing = read_listing(source)
    options = {"layout": listing.layout, "machine_type": source.machine_type, "split": source.split}
    versions = [[entry.path, entry.size, entry.version] for entry in listing.entries]
    return Step(
        stage="ingest",
        name=source.name,
        code_version=CODE_VERSION,
        config=options | {"dataset": source.name, "source": source.uri, "listing": digest_of(versions)},
        inputs={},
        work=lambda attempt, inputs: _work(attempt, listing, source.name, worker, progress),
        units=len(listing.clips) + len(listing.rejected),
        worker=worker,
    )


def _work(attempt: Attempt, listing: Listing, dataset: str, worker: Worker, progress: Progress) -> Outcome:
    from ray_asd.stages import fanout

    rows = [{"uri": uri, "clip_id": listing.ids[uri], **asdict(clip)} for uri, clip in listing.clips.items()]
    table = pa.Table.from_pylist(rows, schema=_LISTED).sort_by([("clip_id", "ascending")])
    done = fanout.run(
        "ingest", lambda: _Check(dataset), table, attempt, shard_rows=SHARD_FILES, worker=worker, progress=progress
    )
    counts = Counter(done.counts)
    files = list(done.files)
    if listing.rejected:
        files.append(attempt.put_table(f"{REJECTS}/names.parquet", _rejects(listing.rejected)))
        counts["rejects"] += len(listing.rejected)
        counts.update(f"reject_{row['reason']}" for row in listing.rejected)
    seen = len(listing.clips) + len(listing.rejected)
    if counts["clips"] + counts["rejects"] != seen:
        raise StageError(f"{seen} files went in; {counts['clips']} clips and {counts['rejects']} rejects came out")
    content = f"{counts.pop(_CONTENT, 0) % 2**256:064x}"
    return Outcome(files, {"clips": 0, "rejects": 0, **counts}, {"layout": listing.layout}, content)


def _row_digest(row: Mapping[str, Any]) -> int:
    """Of everything but the place it was read from; the sum over all rows names them, in whatever order they come."""
    return int(digest_of({name: str(value) for name, value in row.items() if name != "uri"}), 16)


class _Check:
    """One shard: each file read and decoded once, to a CLIPS row or a REJECTS row."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Any:
        from ray_asd.stages.fanout import Done

        clips: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        for row in rows.to_pylist():
            taken, row = self._check(row)
            (clips if taken else rejects).append(row)
            if taken:
                counts.update([row["split"]])
                counts[f"{row['split']}_samples"] += row["num_samples"]
                counts[_CONTENT] += _row_digest(row)
            else:
                counts.update([f"reject_{row['reason']}"])
        counts |= Counter(clips=len(clips), rejects=len(rejects))
        files = []
        if clips:
            table = tables.conform(pa.Table.from_pylist(clips, schema=tables.CLIPS), tables.CLIPS)
            files.append(attempt.put_table(f"{CLIPS}/{number:05d}.parquet", table))
        if rejects:
            files.append(attempt.put_table(f"{REJECTS}/{number:05d}.parquet", _rejects(rejects)))
        return Done(files, dict(counts))

    def _check(self, row: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        from ray_asd.data import audio

        size = None
        try:
            data = storage.read(row["uri"])
            size = len(data)
            info = audio.inspect(data)
        except OSError as error:
            return False, reject(row["uri"], "unreadable", str(error), size)
        except audio.BadAudio as error:
            return False, reject(row["uri"], error.reason, error.detail, size)
        attributes = dict(row["attributes"])
        return True, row | {
            "dataset": self.dataset,
            "condition": layouts.condition(row["machine_type"], attributes),
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "num_samples": info.num_samples,
            "size_bytes": size,
            "content_hash": audio.content_hash(data),
        }


def _rejects(rows: list[dict[str, Any]]) -> pa.Table:
    return tables.conform(pa.Table.from_pylist(rows, schema=tables.REJECTS), tables.REJECTS)
