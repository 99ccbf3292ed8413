"""Which recordings of a night are new: CLIPS of those that no revision of it holds yet, and REJECTS of all of it.

A recording is its machine, content and time. Under another name, or sent once more, it is the same one; with the same
content at another time it is another one, of a recorder that is stuck perhaps (``night`` counts these).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output, digest_of
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.data.ingested import CONTENT, clip_counts, reject_counts, rejects_table
from ray_asd.fleet_tables import MACHINE
from ray_asd.stages.fleet.dates import Calendar
from ray_asd.tables import Folder

STAGE = "recordings"
CODE_VERSION = 1
IDENTITY = (*MACHINE, "content_hash", "recorded_at")
ROWS = 1 << 16  # of a file of CLIPS
_GB_PER_CLIP = 4e-6  # of memory
_MOST_NIGHTS = 100  # whose recordings are told of
_ARRIVED, _KNOWN, _BEFORE = "arrived_", "known_", "before"  # first parts of the names of inputs

Row = dict[str, Any]


@dataclass(frozen=True)
class Arrived:
    """A finished ingest. ``owned``: what of it says no time, and its rejects, are the night's own."""

    output: Output
    owned: bool


def step(
    night: date,
    calendar: Calendar,
    arrived: Sequence[Arrived],
    known: Sequence[Output] = (),
    before: Output | None = None,
) -> Step:
    """What arrived for ``night``.

    Args:
        known: the outputs of this step for the revisions that the night has, oldest first.
        before: the ingest that the night before saw of a place which all nights share: what it holds without a time,
            and its rejects, are that night's.
    """
    inputs = {f"{_ARRIVED}{number:03d}": one.output for number, one in enumerate(arrived)}
    inputs |= {f"{_KNOWN}{number:03d}": output for number, output in enumerate(known)}
    inputs |= {_BEFORE: before} if before else {}
    clips = sum(output.marker.counts["clips"] for output in inputs.values())
    owned = [one.owned for one in arrived]
    return Step(
        stage=STAGE,
        name=night.isoformat(),
        code_version=CODE_VERSION,
        config={
            "night": night.isoformat(),
            "starts_minutes": calendar.starts // timedelta(minutes=1),
            "owned": owned,
            "listings": [output.marker.digest for output in inputs.values()],  # their rejects
        },
        inputs=inputs,
        work=lambda attempt, inputs: _work(attempt, inputs, night, calendar, owned),
        units=clips,
        worker=Worker(memory_gb=round(0.5 + _GB_PER_CLIP * clips, 3)),
        on_ray=False,
    )


def _work(
    attempt: Attempt, inputs: Mapping[str, Output], night: date, calendar: Calendar, owned: Sequence[bool]
) -> Outcome:
    arrived, known = _named(inputs, _ARRIVED), _named(inputs, _KNOWN)
    before = [inputs[_BEFORE]] if _BEFORE in inputs else []
    taken = {key: uri for output in known for part in _parts(output) for key, uri in _identities(part)}
    earlier = {key for output in before for part in _parts(output) for key, _ in _identities(_timeless(part))}
    counts, elsewhere = Counter[str](), Counter[str]()
    found = [tables.CLIPS.empty_table()]
    for output, is_own in zip(arrived, owned, strict=True):
        for part in _parts(output):
            days = calendar.of(part["recorded_at"])
            rows = part.filter(pc.fill_null(pc.equal(days, pa.scalar(night, pa.date32())), is_own))
            elsewhere.update(str(day) for day in days.to_pylist() if is_own and day not in (None, night))
            found.append(rows.filter(pa.array(list(_new(rows, taken, earlier, counts)), pa.bool_())))
    clips = _as_of_a_night(pa.concat_tables(found))
    files = [
        attempt.put_table(f"{Folder.CLIPS}/{number:05d}.parquet", clips.slice(start, ROWS))
        for number, start in enumerate(range(0, clips.num_rows, ROWS))
    ]
    rejects, is_new = _rejects(arrived, owned, known, before, set(taken.values()))
    files.append(attempt.put_table(f"{Folder.REJECTS}/00000.parquet", rejects))
    for start in range(0, clips.num_rows, ROWS):
        counts.update(clip_counts(clips.slice(start, ROWS).to_pylist()))
    counts.update(reject_counts(rejects.to_pylist()))
    content = f"{counts.pop(CONTENT, 0) % 2**256:064x}"
    changed = clips.num_rows + is_new
    summary = {
        "elsewhere": dict(sorted(elsewhere.items())[-_MOST_NIGHTS:]),
        "rejects": digest_of(rejects.to_pylist()),  # which the content, what is scored, says nothing of
    }
    return Outcome(files, {"clips": 0, "rejects": 0, **counts, "new": changed}, summary, content)


def _named(inputs: Mapping[str, Output], first: str) -> list[Output]:
    return [output for name, output in sorted(inputs.items()) if name.startswith(first)]


def _parts(output: Output) -> Iterator[pa.Table]:
    return (output.part(file.path) for file in output.files(Folder.CLIPS))


def _timeless(clips: pa.Table) -> pa.Table:
    return clips.filter(pc.is_null(clips["recorded_at"]))


def _identities(clips: pa.Table) -> Iterator[tuple[tuple[Any, ...], str]]:
    columns = [clips[name] for name in MACHINE]
    columns += [clips["content_hash"], pc.cast(clips["recorded_at"], pa.int64())]
    *key, uris = (column.to_pylist() for column in (*columns, clips["uri"]))
    return zip(zip(*key, strict=True), uris, strict=True)


def _new(
    clips: pa.Table, taken: dict[tuple[Any, ...], str], earlier: set[tuple[Any, ...]], counts: Counter[str]
) -> Iterator[bool]:
    """Whether each of ``clips`` is in no revision, and the first of its identity; it is ``taken`` from then on."""
    for key, uri in _identities(clips):
        if key in earlier:
            counts["earlier"] += 1
            yield False
        elif key in taken:
            counts["known" if taken[key] == uri else "renamed"] += 1
            yield False
        else:
            taken[key] = uri
            yield True


def _as_of_a_night(clips: pa.Table) -> pa.Table:
    """In order, and to be scored whatever their folders are called; of duplicates only those of the night count."""
    clips = clips.sort_by([("clip_id", "ascending"), ("content_hash", "ascending")])
    for name, value in (("split", "test"), ("duplicate_of", None)):
        place = clips.column_names.index(name)
        clips = clips.set_column(place, tables.CLIPS.field(name), pa.array([value] * len(clips), pa.string()))
    return tables.conform(clips, tables.CLIPS)


def _rejects(
    arrived: Sequence[Output], owned: Sequence[bool], known: Sequence[Output], before: Sequence[Output], taken: set[str]
) -> tuple[pa.Table, int]:
    """REJECTS of the night as far as is known now, and how many of them no revision has.

    One that was replaced by a recording which could be taken is none any more.
    """
    earlier = {_why(row) for output in before for row in _rejected(output)}
    last = {row["uri"]: row for output in known[-1:] for row in _rejected(output)}
    now = {
        row["uri"]: row
        for output, is_own in zip(arrived, owned, strict=True)
        for row in (_rejected(output) if is_own else [])
        if _why(row) not in earlier
    }
    left = {uri: row for uri, row in (last | now).items() if uri not in taken}
    old = {_why(row) for row in last.values()}
    new = sum(_why(row) not in old for row in left.values())
    return rejects_table(left[uri] for uri in sorted(left)), new


def _rejected(output: Output) -> list[Row]:
    rows: list[Row] = output.table(Folder.REJECTS, tables.REJECTS).to_pylist()
    return rows


def _why(row: Row) -> tuple[str, str]:
    return row["uri"], row["reason"]
