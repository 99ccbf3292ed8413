"""What of an ingest is a night's own and new, told from tables alone."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ray_asd import build, tables
from ray_asd.build import Attempt, Key, Outcome, Output, steps
from ray_asd.data.ingested import clips_table, reject, rejects_table
from ray_asd.scoring.rules import Settings
from ray_asd.stages.fleet import night, recordings_of_night
from ray_asd.stages.fleet.dates import Calendar
from ray_asd.stages.fleet.deciding import Past
from ray_asd.stages.fleet.recordings_of_night import Arrived
from ray_asd.tables import Folder
from stages.fleet import made as detectors
from training_clips import row

NIGHT = date(2026, 11, 25)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def clip(name: str, at: datetime | None = NOON, **values: Any) -> dict[str, Any]:
    return row(name, machine_type="fan", recorded_at=at, content_hash=name, **values)


def ingested(
    root: str, number: int, clips: Sequence[dict[str, Any]], rejects: Sequence[tuple[str, str]] = ()
) -> Output:
    """As ingest leaves it."""

    def work(attempt: Attempt) -> Outcome:
        refused = rejects_table(reject(uri, reason, "", 1) for uri, reason in rejects)
        files = [attempt.put_table(f"{Folder.REJECTS}/names.parquet", refused)]
        files += [attempt.put_table(f"{Folder.CLIPS}/00000.parquet", clips_table(clips))] if clips else []
        return Outcome(files, {"clips": len(clips), "rejects": len(rejects)}, {"layout": "csv"})

    return build.run(root, Key("ingest", "in", 1, {"number": number}, {}), work)


def made(root: str, arrived: Sequence[Arrived], *known: Output, before: Output | None = None) -> Output:
    return steps.ensure(recordings_of_night.step(NIGHT, Calendar(), arrived, known, before), root)


def names(output: Output) -> list[str]:
    found: list[str] = output.table(Folder.CLIPS, tables.CLIPS)["clip_id"].to_pylist()
    return found


def refused(output: Output) -> list[tuple[str, str]]:
    table: pa.Table = output.table(Folder.REJECTS, tables.REJECTS)
    return list(zip(table["uri"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_a_recording_is_its_machine_content_and_time(root: str) -> None:
    later = NOON.replace(hour=13)
    first = made(root, [Arrived(ingested(root, 1, [clip("a"), clip("b", split="train")]), True)])
    assert names(first) == ["a", "b"]
    assert set(first.table(Folder.CLIPS)["split"].to_pylist()) == {"test"}, "all of a night is scored"
    again = [
        clip("a"),
        clip("b") | {"clip_id": "renamed", "uri": "renamed"},
        clip("b", later) | {"clip_id": "stuck"},
        clip("a") | {"clip_id": "other", "machine_id": "m2"},
        clip("c", NOON.replace(day=24)),
        clip("d", NOON.replace(day=26)),
    ]
    second = made(root, [Arrived(ingested(root, 2, again), True)], first)
    assert names(second) == ["other", "stuck"]
    counts = second.marker.counts
    assert (counts["new"], counts["clips"], counts["test"], counts["known"], counts["renamed"]) == (2, 2, 2, 1, 1)
    assert second.marker.summary["elsewhere"] == {"2026-11-24": 1, "2026-11-26": 1}
    assert first.source.digest != second.source.digest


def test_what_says_no_time_is_of_the_night_whose_place_it_lies_in(root: str) -> None:
    timeless = ingested(root, 1, [clip("a", None), clip("b")], [("x", "silent")])
    assert names(made(root, [Arrived(timeless, True)])) == ["a", "b"]
    elsewhere = made(root, [Arrived(timeless, False)])
    assert (names(elsewhere), refused(elsewhere)) == (["b"], [])


def test_where_nights_share_a_place_only_what_came_since_is_of_this_one(root: str) -> None:
    """Times tell of the others."""
    before = ingested(root, 1, [clip("a", None), clip("b", NOON.replace(day=24))], [("x", "silent")])
    now = [clip("a", None), clip("b", NOON.replace(day=24)), clip("c", None), clip("d")]
    arrived = [Arrived(ingested(root, 2, now, [("x", "silent"), ("y", "truncated")]), True)]
    found = made(root, arrived, before=before)
    assert names(found) == ["c", "d"]
    assert refused(found) == [("y", "truncated")]


def test_rejects_are_those_of_now_and_none_that_was_replaced(root: str) -> None:
    first = made(root, [Arrived(ingested(root, 1, [], [("x", "truncated"), ("y", "silent")]), True)])
    assert (first.marker.counts["new"], first.marker.counts["rejects"], first.marker.counts["clips"]) == (2, 2, 0)
    better = [clip("a") | {"uri": "x"}]
    second = made(root, [Arrived(ingested(root, 2, better, [("y", "silent"), ("z", "silent")]), True)], first)
    assert refused(second) == [("y", "silent"), ("z", "silent")]
    assert second.marker.counts["new"] == 2, "a recording and a reject"
    third = made(root, [Arrived(ingested(root, 3, better, [("z", "silent")]), True)], first, second)
    assert (third.marker.counts["new"], refused(third)) == (0, [("y", "silent"), ("z", "silent")])


def test_a_night_depends_on_its_rejects_and_its_scores_do_not(root: str) -> None:
    one, other = (
        made(root, [Arrived(ingested(root, number, [clip("a")], [(uri, "silent")]), True)])
        for number, uri in enumerate("xy")
    )
    detector = detectors.detector(Path(root))
    keys = {night.step(NIGHT, [each], [], detector, Past(), Settings()).key(root).digest for each in (one, other)}
    assert (len(keys), one.source.digest) == (2, other.source.digest)
