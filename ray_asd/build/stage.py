"""Stages as a build: what a stage's output is keyed by, how it is committed, and how it is found again.

The output of a stage lives in ``<root>/<stage>/<name>-<digest>/``. Work writes below ``attempt-<uuid>/``, or, where it
can go on after a kill, below ``parts/``; last, one conditional write puts ``marker.json``, which lists the files that
count. Of two writers one wins, and the other uses the winner's output. What no marker lists does not exist for readers.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_asd import store
from ray_asd.build import events
from ray_asd.build.outputs import MARKER, File, Held, Marker, Output, Source, digest_of, find
from ray_asd.errors import StageError
from ray_asd.store import lease

PARTS = "parts"  # what stages that can go on where they were killed have in place of attempts
RECEIPTS = "receipts"  # folder in there: which parts are done
_RECORDED_VERSIONS = ("ray_asd", "torch", "transformers", "ray", "numpy", "faiss-gpu", "faiss-cpu", "soundfile")


@dataclass(frozen=True)
class Key:
    """All that a stage's result depends on; ``config`` holds plain JSON values."""

    stage: str
    name: str
    code_version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Source]

    @property
    def digest(self) -> str:
        """Hex sha256 over everything but the places (``uri``) the inputs were read from."""
        inputs = {name: source.digest for name, source in self.inputs.items()}
        return digest_of([self.stage, self.code_version, self.config, inputs])

    def folder(self, root: str) -> str:
        return store.join(root, self.stage, f"{store.file_name(self.name)}-{self.digest[:12]}")


@dataclass(frozen=True)
class Attempt:
    """A place to write one try at a stage; it travels to workers by value.

    An exclusive stage has a ``fence``, and may keep state between its attempts in folders beside them. In the ``PARTS``
    that all tries at a stage share, a file's name ends with part of its digest: two tries that write different
    content never write over each other.
    """

    uri: str
    fence: lease.Fence | None = None

    @property
    def is_shared(self) -> bool:
        return store.name(self.uri) == PARTS

    def put(self, path: str, data: bytes, rows: int | None = None) -> File:
        """Write ``data`` below the attempt; a repeated write of the same path replaces it."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._named(path, digest)
        store.write(store.join(self.uri, path), data)
        return File(path=path, size=len(data), sha256=digest, rows=rows)

    def put_table(self, path: str, table: pa.Table) -> File:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return self.put(path, sink.getvalue().to_pybytes(), table.num_rows)

    def put_file(self, path: str, local: Path, rows: int | None = None) -> File:
        digest = store.sha256(str(local))
        path = self._named(path, digest)
        store.upload(local, store.join(self.uri, path))
        return File(path=path, size=local.stat().st_size, sha256=digest, rows=rows)

    def _named(self, path: str, digest: str) -> str:
        if not self.is_shared:
            return path
        stem, dot, ending = path.rpartition(".")
        return f"{stem}-{digest[:12]}{dot}{ending}"


@dataclass(frozen=True)
class Outcome:
    """What the work of a stage hands to the commit.

    ``content`` replaces the stage's digest for its readers where the result can be the same for other inputs.
    """

    files: Sequence[File]
    counts: Mapping[str, int]
    summary: Mapping[str, Any] = field(default_factory=dict)
    content: str | None = None
    held: Held = Held()


def run(
    root: str,
    key: Key,
    work: Callable[[Attempt], Outcome],
    units: int = 0,
    fence: lease.Fence | None = None,
    resumable: bool = False,
) -> Output:
    """The output of ``key`` below ``root``: what is there, or else what ``work`` makes and this call commits.

    ``resumable`` work is given the ``PARTS`` that an earlier try may have left.

    Raises:
        UserError: the store below ``root`` has no conditional writes.
    """
    folder = key.folder(root)
    if done := find(folder):
        return done
    store.check_conditional_writes(root)
    started_at, begun = datetime.now(UTC), time.monotonic()
    attempt = Attempt(store.join(folder, PARTS)) if resumable else new_attempt(folder, fence)
    about = {"stage": key.stage, "output": folder, "attempt": store.name(attempt.uri)}
    events.say("stage begun", **about, units=units)
    try:
        outcome = work(attempt)
    except StageError:
        done = find(folder) if resumable else None  # by another process, which clears away what this one was reading
        if done is None:
            raise
        store.remove(store.join(folder, PARTS, RECEIPTS))
        return done
    marker = _marker(key, attempt, outcome, units, started_at, time.monotonic() - begun)
    output = commit(folder, marker)
    events.say("stage done", **about, seconds=marker.seconds, counts=marker.counts, by_another=output.reused)
    return output


def _marker(key: Key, attempt: Attempt, outcome: Outcome, units: int, started_at: datetime, seconds: float) -> Marker:
    return Marker(
        format=1,
        stage=key.stage,
        name=key.name,
        digest=key.digest,
        content=outcome.content or key.digest,
        code_version=key.code_version,
        config=dict(key.config),
        inputs=dict(key.inputs),
        attempt=store.name(attempt.uri),
        files=sorted(outcome.files, key=lambda f: f.path),
        counts=dict(outcome.counts),
        summary=dict(outcome.summary),
        units=units,
        held=outcome.held,
        versions=versions(),
        started_at=started_at,
        seconds=round(seconds - outcome.held.waited, 3),
    )


def new_attempt(folder: str, fence: lease.Fence | None = None) -> Attempt:
    """A place for one try, below ``folder``."""
    return Attempt(store.join(folder, f"attempt-{uuid.uuid4().hex}"), fence)


def commit(folder: str, marker: Marker) -> Output:
    """Make ``marker`` the one that counts, or give up its attempt for the one that came first."""
    won = store.create(store.join(folder, MARKER), marker.model_dump_json(indent=1).encode())
    if marker.attempt == PARTS:
        store.remove(store.join(folder, PARTS, RECEIPTS))
    elif not won:
        store.remove(store.join(folder, marker.attempt))
    if won:
        return Output(folder, marker, reused=False)
    winner = find(folder)
    if winner is None:
        raise StageError(f"{folder}: another process committed this stage and its marker is gone again")
    return winner


def versions() -> dict[str, str]:
    """Installed versions of what can change a result."""
    found = {}
    for package in _RECORDED_VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
