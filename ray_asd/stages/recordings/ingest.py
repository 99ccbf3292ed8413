"""Recordings in: every file below a source becomes one row of CLIPS or one of REJECTS.

The stage is keyed by the listing, taken anew each time; what later stages depend on is the content of CLIPS without
its places, so that touched, moved or packed files cause no new work after this stage. Of files that have not changed
an earlier ingest knows what they hold: the same shards are written as without it, but these files are not read.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, digest_of
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data import inspection, packs
from ray_asd.data.ingested import CONTENT, reject_counts, rejects_table
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.listing import Listing, Source, read_listing
from ray_asd.engine import cutting
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.stages.recordings import duplicates, earlier, second_look
from ray_asd.stages.recordings.check import Check
from ray_asd.tables import Folder

CODE_VERSION = 3
_PARSED = [field.name for field in fields(ParsedClip)]
_LISTED = pa.schema(
    [
        *(pa.field(name, tables.CLIPS.field(name).type) for name in ("uri", "clip_id", *_PARSED)),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
    ]
)


@dataclass(frozen=True)
class Options:
    """What is done with recordings beside checking them."""

    pack: bool = False  # copy them into packs
    reject_duplicates: bool = False  # else they are noted


def step(source: Source, worker: Worker, progress: Progress, options: Options = Options()) -> Step:
    """The step that ingests ``source`` as it is now.

    Raises:
        UserError: nothing is there, no layout fits or two do, or a CSV file is malformed.
    """
    listing = read_listing(source)
    config: dict[str, Any] = {"layout": listing.layout, "machine_type": source.machine_type, "split": source.split}
    config |= asdict(options)
    versions = [[entry.path, entry.size, entry.version] for entry in listing.entries]
    return Step(
        stage="ingest",
        name=source.name,
        code_version=CODE_VERSION,
        config=config | {"dataset": source.name, "source": source.uri, "listing": digest_of(versions)},
        inputs={},
        work=lambda attempt, inputs: _work(attempt, listing, source, options, worker, progress),
        units=len(listing.clips) + len(listing.rejected),
        worker=worker,
        resumable=True,
    )


def _work(
    attempt: Attempt, listing: Listing, source: Source, options: Options, worker: Worker, progress: Progress
) -> Outcome:
    from ray_asd.engine import shards

    known = earlier.inspected(attempt, source, CODE_VERSION)
    done = shards.run(
        "ingest",
        lambda: Check(source.name, options.pack),
        _shards(inspection.with_known(_listed(listing), known), options.pack),
        attempt,
        worker=worker,
        progress=progress,
    )
    second_look.confirm(attempt, done)
    files, counts = duplicates.noted(attempt, done.files, options.reject_duplicates)
    counts.update(done.counts)
    if listing.rejected:
        files.append(attempt.put_table(f"{Folder.REJECTS}/names.parquet", rejects_table(listing.rejected)))
        counts.update(reject_counts(listing.rejected))
    seen = len(listing.clips) + len(listing.rejected)
    if counts["clips"] + counts["rejects"] != seen:
        raise StageError(f"{seen} files went in; {counts['clips']} clips and {counts['rejects']} rejects came out")
    content = f"{counts.pop(CONTENT, 0) % 2**256:064x}"
    return Outcome(
        files, {"clips": 0, "rejects": 0, **+counts}, {"layout": listing.layout, "why": listing.why}, content, done.held
    )


def _listed(listing: Listing) -> pa.Table:
    """The listed recordings in order of clip_id."""
    uris, clips, files = list(listing.clips), list(listing.clips.values()), listing.files
    columns: dict[str, list[Any]] = {"uri": uris, "clip_id": [listing.ids[uri] for uri in uris]}
    for name in _PARSED:
        columns[name] = [getattr(clip, name) for clip in clips]
    columns["attributes"] = [list(pairs.items()) for pairs in columns["attributes"]]
    columns |= {name: [getattr(files[uri], name) for uri in uris] for name in ("size", "version")}
    return pa.table(columns, schema=_LISTED).sort_by([("clip_id", "ascending")])


def _shards(table: pa.Table, pack: bool) -> list[pa.Table]:
    """``table`` in shards; what goes into one pack together."""
    if not pack:
        return cutting.rows(table, cutting.shard_size(table.num_rows))
    starts = packs.cuts(table["size"].to_pylist(), cutting.LARGEST)
    ends = [*starts[1:], table.num_rows]
    return [table.slice(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]
