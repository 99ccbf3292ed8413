"""What shards did: told by workers as JSON, kept as receipts, added up by the driver."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from ray_asd import store
from ray_asd.build import RECEIPTS, Attempt, File, Held
from ray_asd.engine import cutting
from ray_asd.engine.progress import Progress
from ray_asd.errors import Retryable, StageError, UserError, kind

_READERS = 16
_CARRIED = {kind.__name__: kind for kind in (UserError, Retryable, StageError)}


@dataclass(frozen=True)
class Done:
    """What one shard, or all of them together, wrote and counted; and what all of them held on Ray."""

    files: list[File]
    counts: dict[str, int]
    held: Held = Held()


def place(attempt: Attempt, name: str) -> str:
    """Where a receipt lies."""
    return store.join(attempt.uri, RECEIPTS, name)


def forget(attempt: Attempt, names: Collection[str]) -> None:
    """The shards that wrote under these names are to be done again by the next try."""
    for receipt in store.files(store.join(attempt.uri, RECEIPTS)):
        if receipt.partition("-")[0] in names:
            store.remove(place(attempt, receipt))


def as_json(done: Done) -> str:
    """What one shard did."""
    return json.dumps({"files": [asdict(file) for file in done.files], "counts": done.counts})


def failed(error: UserError | StageError) -> str:
    """Why a shard could not be done."""
    return json.dumps({"error": kind(error).__name__, "message": str(error)})


class Sum:
    """What the shards did so far."""

    def __init__(self, what: str, shards: Sequence[pa.Table], progress: Progress) -> None:
        self._what, self._progress = what, progress
        self._sizes = [cutting.size(shard) for shard in shards]
        self.names = [_name(number, shard) for number, shard in enumerate(shards)]
        self._files: list[File] = []
        self._counts: Counter[str] = Counter()
        self._missing = dict.fromkeys(range(len(shards)))
        self._total, self._left = sum(self._sizes), sum(self._sizes)
        self._show()

    @property
    def missing(self) -> list[int]:
        return list(self._missing)

    def add_receipts(self, attempt: Attempt) -> None:
        """Take what an earlier try has done already."""
        if not attempt.is_shared:
            return
        there = set(store.files(store.join(attempt.uri, RECEIPTS)))
        done = [number for number, name in enumerate(self.names) if f"{name}.json" in there]
        with ThreadPoolExecutor(_READERS) as pool:
            receipts = pool.map(lambda number: _read(place(attempt, f"{self.names[number]}.json")), done)
            for number, receipt in zip(done, receipts, strict=True):
                if receipt is not None:
                    self._take(number, receipt)

    def add(self, number: int, done: dict[str, Any]) -> None:
        """Raises what the work raised."""
        if "error" in done:
            raise _CARRIED[done["error"]](done["message"])
        from ray_asd.engine import telemetry  # and Ray with it, which planning needs not

        telemetry.counted(self._what, done["counts"])
        self._take(number, done)

    def _take(self, number: int, done: dict[str, Any]) -> None:
        del self._missing[number]
        self._left -= self._sizes[number]
        self._files += [File(**file) for file in done["files"]]
        self._counts.update(done["counts"])
        self._show()

    def done(self, held: Held) -> Done:
        if self._missing:
            raise StageError(f"{self._what}: {len(self._missing)} of {len(self._sizes)} shards never came back")
        return Done(self._files, dict(self._counts), held)

    def _show(self) -> None:
        from ray_asd.engine import telemetry

        telemetry.reached(self._what, self._total - self._left, self._total)
        self._progress(self._what, self._total - self._left, self._total)


def _read(receipt: str) -> dict[str, Any] | None:
    """None for one that another process has cleared away with its commit."""
    try:
        told: dict[str, Any] = json.loads(store.read(receipt))
    except FileNotFoundError:
        return None
    return told


def _name(number: int, rows: pa.Table) -> str:
    """Of a receipt: one of a plan that cut its shards otherwise is nobody's."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return f"{number:05d}-{hashlib.sha256(sink.getvalue()).hexdigest()[:12]}"
