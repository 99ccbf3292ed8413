"""Recordings in: every file below a source becomes one row of CLIPS or one of REJECTS.

The stage is keyed by the listing, taken anew each time; what later stages depend on is the content of CLIPS without
its places, so that touched, moved or packed files cause no new work after this stage.
"""

import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_asd import store, tables
from ray_asd.build import Attempt, File, Outcome, digest_of
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data import layouts
from ray_asd.data.ingested import CONTENT, clip_counts, clips_table, reject, reject_counts, rejects_table
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.listing import Listing, Source, read_listing
from ray_asd.engine.progress import Progress
from ray_asd.errors import Rejected, StageError
from ray_asd.stages.recordings import duplicates, second_look
from ray_asd.tables import Folder

CODE_VERSION = 2
_PARSED = [field.name for field in fields(ParsedClip)]
_LISTED = pa.schema([pa.field(name, tables.CLIPS.field(name).type) for name in ("uri", "clip_id", *_PARSED)])


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

    done = shards.run(
        "ingest",
        lambda: _Check(source.name, options.pack),
        _shards(listing, source, options.pack),
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


def _shards(listing: Listing, source: Source, pack: bool) -> list[pa.Table]:
    """The listed recordings in order of clip_id; those that go into one pack together."""
    from ray_asd.data import packs
    from ray_asd.engine import cutting

    uris, clips = list(listing.clips), list(listing.clips.values())
    columns: dict[str, list[Any]] = {"uri": uris, "clip_id": [listing.ids[uri] for uri in uris]}
    for name in _PARSED:
        columns[name] = [getattr(clip, name) for clip in clips]
    columns["attributes"] = [list(pairs.items()) for pairs in columns["attributes"]]
    table = pa.table(columns, schema=_LISTED).sort_by([("clip_id", "ascending")])
    if not pack:
        return cutting.rows(table, cutting.shard_size(table.num_rows))
    sizes = {entry.path: entry.size for entry in listing.entries}
    sizes |= {store.join(source.uri, path): size for path, size in sizes.items()}
    starts = packs.cuts([sizes[uri] for uri in table["uri"].to_pylist()], cutting.LARGEST)
    ends = [*starts[1:], table.num_rows]
    return [table.slice(start, end - start) for start, end in zip(starts, ends, strict=True) if end > start]


class _Check:
    """One shard: each file read and decoded once, to a CLIPS row or a REJECTS row; and into a pack if wanted."""

    def __init__(self, dataset: str, pack: bool) -> None:
        self.dataset = dataset
        self.pack = pack

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.data import packs
        from ray_asd.engine.receipts import Done

        clips: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        files: list[File] = []
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "pack"
            with packs.Writer(local) if self.pack else nullcontext() as pack:
                for listed in rows.to_pylist():
                    row, recording = self._check(listed)
                    if recording is None:
                        rejected.append(row)
                        continue
                    row["pack_row"] = pack.add(row["clip_id"], recording) if pack else None
                    clips.append(row)
            if pack and clips:
                files.append(attempt.put_file(f"{Folder.PACKS}/{name}.parquet", local, pack.rows))
                place = store.join(attempt.uri, files[0].path)
                clips = [row | {"pack": place} for row in clips]
        if clips:
            files.append(attempt.put_table(f"{Folder.CLIPS}/{name}.parquet", clips_table(clips)))
        if rejected:
            files.append(attempt.put_table(f"{Folder.REJECTS}/{name}.parquet", rejects_table(rejected)))
        return Done(files, dict(clip_counts(clips) + reject_counts(rejected)))

    def _check(self, row: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """A CLIPS row and the recording, or a REJECTS row and nothing."""
        from ray_asd.data import audio, recordings

        size = None
        try:
            recording = recordings.at(row["uri"])
            size = len(recording)
            info = audio.inspect(recording)
        except FileNotFoundError as error:
            return reject(row["uri"], "missing", str(error), size), None
        except OSError as error:  # the file's own: what the environment does wrong is none here
            return reject(row["uri"], "unreadable", str(error), size), None
        except Rejected as error:
            return reject(row["uri"], error.reason, error.detail, size), None
        return row | {
            "dataset": self.dataset,
            "condition": layouts.condition(row["machine_type"], row["section"], dict(row["attributes"])),
            "sample_rate": info.sample_rate,
            "channels": info.channels,
            "num_samples": info.num_samples,
            "size_bytes": size,
            "content_hash": audio.content_hash(recording),
        }, recording
