"""The driver looks again at recordings that workers could not read: was it the recording, or the worker's machine?

A source that is not mounted on one node, or belongs to another user there, looks to its workers as if files were
missing or forbidden. What is committed as a reject stays one, so a reject for such a reason has to be so here too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ray_asd import store
from ray_asd.build import Attempt
from ray_asd.data import recordings
from ray_asd.errors import Retryable, UserError
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.engine.receipts import Done

_DOUBTFUL = ("missing", "unreadable")
_READERS = 16
_MOST_AHEAD = 1024  # answers that wait
_CHECK = "is the source mounted on every node, for the same user? The same command does their shards again"


def confirm(attempt: Attempt, done: "Done") -> None:
    """Return when the driver cannot read what its workers could not.

    Raises:
        UserError: not one recording may be read, so that nothing is known of any; all shards count as not done.
        Retryable: it can read some; the shards of these count as not done.
    """
    from ray_asd.engine import receipts

    if not any(done.counts.get(f"reject_{reason}") for reason in _DOUBTFUL):
        return
    if done.counts.get("reject_unreadable", 0) == sum(done.counts.get(kind, 0) for kind in ("clips", "rejects")):
        rows = list(_doubtful(attempt, done))
        receipts.forget(attempt, {row["shard"] for row in rows})
        first = f"the first is {rows[0]['uri']}: {rows[0]['detail']}"
        raise UserError(f"none of {len(rows)} recordings may be read, {first}; allowed: a source that may be")
    first, count, shards = "", 0, set[str]()
    for row, can_be_read in recordings.ahead(_looked_at, _doubtful(attempt, done), _READERS, _MOST_AHEAD):
        if can_be_read:
            first = first or f"first {row['uri']} ({row['reason']}: {row['detail']})"
            count += 1
            shards.add(row["shard"])
    if count:
        receipts.forget(attempt, shards)
        raise Retryable(f"{count} recordings can be read here, but not on their workers, {first}; {_CHECK}")


def _looked_at(row: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    return row, recordings.is_there(row["uri"])


def _doubtful(attempt: Attempt, done: "Done") -> Iterator[dict[str, Any]]:
    """The rows of REJECTS in question, with the name of their shard."""
    for file in sorted(done.files, key=lambda file: file.path):
        if not file.path.startswith(f"{Folder.REJECTS}/"):
            continue
        with store.open_read(store.join(attempt.uri, file.path)) as content:
            rows = pq.read_table(content).to_pylist()
        shard = store.name(file.path).partition(".")[0].partition("-")[0]
        yield from (row | {"shard": shard} for row in rows if row["reason"] in _DOUBTFUL)
