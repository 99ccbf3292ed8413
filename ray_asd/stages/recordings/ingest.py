"""Recordings in: every file below a source becomes one row of CLIPS or one of REJECTS.

The stage is keyed by the listing, taken anew each time; what later stages depend on is the content of CLIPS without
its places, so that touched, moved or packed files cause no new work after this stage. Of files that have not changed
an earlier ingest knows what they hold: the same shards are written as without it, but these files are not read.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import pyarrow as pa

from ray_asd import tables
from ray_asd.build import Attempt, Outcome
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data import inspection, packs
from ray_asd.data.ingested import CONTENT, reject_counts
from ray_asd.data.listing import Listing, read_listing
from ray_asd.data.source import Source
from ray_asd.data.spooled import Spooled
from ray_asd.engine import cutting
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.stages.recordings import duplicates, earlier, second_look
from ray_asd.stages.recordings.check import Check
from ray_asd.tables import Folder

CODE_VERSION = 5
_REJECTS_IN_FILE = 1 << 16


@dataclass(frozen=True)
class Options:
    """What is done with recordings beside checking them."""

    pack: bool = False  # copy them into packs
    reject_duplicates: bool = False  # else they are noted
    accept: tuple[str, ...] = ()  # of reasons.ACCEPTABLE


def step(source: Source, worker: Worker, progress: Progress, options: Options = Options()) -> Step:
    """The step that ingests ``source`` as it is now.

    Raises:
        UserError: nothing is there, no layout fits or two do, or a CSV file or pattern is malformed.
    """
    listing = read_listing(source)
    config: dict[str, Any] = {"layout": listing.layout, "machine_type": source.machine_type, "split": source.split}
    config |= asdict(options) | ({"pattern": source.pattern} if source.pattern is not None else {})
    return Step(
        stage="ingest",
        name=source.name,
        code_version=CODE_VERSION,
        config=config | {"dataset": source.name, "source": source.uri, "listing": listing.version},
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

    done = shards.run(
        "ingest",
        lambda: Check(source.name, options.pack, options.accept),
        cutting.manifest(_shards(listing, earlier.inspected(attempt, source, CODE_VERSION), options), attempt),
        attempt,
        worker=worker,
        progress=progress,
    )
    second_look.confirm(attempt, done)
    files, counts = duplicates.noted(attempt, done.files, options.reject_duplicates)
    counts.update(done.counts)
    for number, rejects in enumerate(listing.rejected.cut(repeat(_REJECTS_IN_FILE))):
        name = f"names{number or ''}"
        files.append(attempt.put_table(f"{Folder.REJECTS}/{name}.parquet", tables.conform(rejects, tables.REJECTS)))
        counts.update(reject_counts(rejects.to_pylist()))
    seen = len(listing.clips) + len(listing.rejected)
    if counts["clips"] + counts["rejects"] != seen:
        raise StageError(f"{seen} files went in; {counts['clips']} clips and {counts['rejects']} rejects came out")
    content = f"{counts.pop(CONTENT, 0) % 2**256:064x}"
    return Outcome(
        files, {"clips": 0, "rejects": 0, **+counts}, {"layout": listing.layout, "why": listing.why}, content, done.held
    )


def _shards(listing: Listing, inspected: Spooled, options: Options) -> Iterator[pa.Table]:
    """The clips of ``listing`` and what is known of them in shards; what goes into one pack together."""
    known = inspection.with_known(listing.clips, inspected)
    if not options.pack:
        return known.cut(repeat(cutting.shard_size(len(known))))
    sizes = (size for table in known.tables() for size in table["size"].to_pylist())
    return known.cut(packs.cuts(sizes, cutting.LARGEST))
