"""Stages as a build: what a stage's output is keyed by, how it is committed, and how it is found again.

The output of a stage lives in ``<root>/<stage>/<name>-<digest>/``. Work writes below ``attempt-<uuid>/``, or, where it
can go on after a kill, below ``parts/``; last, one conditional write puts ``marker.json``, which lists the files that
count. Of two writers one wins, and the other uses the winner's output. What no marker lists does not exist for readers.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_asd import lease, storage
from ray_asd.errors import StageError, UserError

MARKER = "marker.json"
PARTS = "parts"  # what stages that can go on where they were killed have in place of attempts
RECEIPTS = "receipts"  # folder in there: which parts are done
_RECORDED_VERSIONS = ("ray_asd", "torch", "transformers", "ray", "numpy", "faiss-gpu", "faiss-cpu", "soundfile")


class File(BaseModel):
    """A committed file: path below its attempt, size in bytes, sha256 in hex; of a table, the number of its rows."""

    model_config = ConfigDict(frozen=True)
    path: str
    size: int
    sha256: str
    rows: int | None = None


class Source(BaseModel):
    """One input of a stage: the digest that counts, and where it was read from."""

    model_config = ConfigDict(frozen=True)
    digest: str
    uri: str


class Held(BaseModel):
    """What the work of a stage held on Ray while it ran, and the seconds it waited before it got that."""

    model_config = ConfigDict(frozen=True)
    cpus: float = 0.0
    gpus: float = 0.0
    waited: float = 0.0


class Marker(BaseModel):
    """What a finished stage says of itself."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1] = 1
    stage: str
    name: str
    digest: str
    content: str  # what stages that read this one depend on
    code_version: int
    config: dict[str, Any]
    inputs: dict[str, Source]
    attempt: str
    files: list[File]
    counts: dict[str, int]
    summary: dict[str, Any]
    units: int  # clips or training steps that the work went through
    held: Held = Held()
    versions: dict[str, str]
    started_at: datetime
    seconds: float  # of work; what it waited for its turn is left out


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
        return storage.join(root, self.stage, f"{self.name}-{self.digest[:12]}")


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
        return storage.name(self.uri) == PARTS

    def put(self, path: str, data: bytes, rows: int | None = None) -> File:
        """Write ``data`` below the attempt; a repeated write of the same path replaces it."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._named(path, digest)
        storage.write(storage.join(self.uri, path), data)
        return File(path=path, size=len(data), sha256=digest, rows=rows)

    def put_table(self, path: str, table: pa.Table) -> File:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return self.put(path, sink.getvalue().to_pybytes(), table.num_rows)

    def put_file(self, path: str, local: Path, rows: int | None = None) -> File:
        digest = storage.sha256(str(local))
        path = self._named(path, digest)
        storage.upload(local, storage.join(self.uri, path))
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

    files: Iterable[File]
    counts: Mapping[str, int]
    summary: Mapping[str, Any] = field(default_factory=dict)
    content: str | None = None
    held: Held = Held()


@dataclass(frozen=True)
class Output:
    """A finished stage: its folder, its marker, and whether this call found it already there."""

    uri: str
    marker: Marker
    reused: bool = True

    @property
    def source(self) -> Source:
        """This output as an input of the next stage."""
        return Source(digest=self.marker.content, uri=self.uri)

    def files(self, folder: str) -> list[File]:
        """Committed files below ``folder``, in order of path."""
        return sorted((f for f in self.marker.files if f.path.startswith(f"{folder}/")), key=lambda f: f.path)

    def file_uri(self, path: str) -> str:
        return storage.join(self.uri, self.marker.attempt, path)

    def read(self, path: str) -> bytes:
        """Content of one committed file, checked against its recorded digest.

        Raises:
            StageError: the marker does not list it, or its content is another than was committed.
        """
        digest = self._listed(path).sha256
        data = storage.read(self.file_uri(path))
        if hashlib.sha256(data).hexdigest() != digest:
            raise StageError(f"{self.file_uri(path)}: its content is not what was committed")
        return data

    def table(self, folder: str, schema: pa.Schema | None = None) -> pa.Table:
        """The committed Parquet files below ``folder`` as one table; empty with ``schema`` when there are none."""
        parts = [self.part(file.path) for file in self.files(folder)]
        if not parts and schema is not None:
            return schema.empty_table()
        return pa.concat_tables(parts)

    def part(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One committed Parquet file, or some of its columns."""
        return pq.read_table(pa.BufferReader(self.read(path)), columns=columns and list(columns))

    def fetch(self, path: str) -> Path:
        """A local file with the content of one committed file (large ones: nothing is read into memory)."""
        return storage.fetch(self.file_uri(path), self._listed(path).sha256)

    def _listed(self, path: str) -> File:
        for file in self.marker.files:
            if file.path == path:
                return file
        raise StageError(f"{self.uri} lists no file {path!r}")


def digest_of(value: object) -> str:
    """Hex sha256 of the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find(folder: str) -> Output | None:
    """The finished stage in ``folder``, if its marker stands."""
    try:
        marker = Marker.model_validate_json(storage.read(storage.join(folder, MARKER)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in mistake["loc"])
        place = storage.join(folder, MARKER)
        raise StageError(f"{place}: no marker of this version: {where}{mistake['msg']}") from error
    return Output(folder, marker)


def resolve(uri: str, *stages: str) -> Output:
    """The finished stage that a user named by URI, which must be one of ``stages``.

    Raises:
        UserError: no marker stands there, or it is another stage's.
    """
    uri = storage.absolute(uri)
    output = find(uri)
    if output is None:
        wanted = " or ".join(stages)
        raise UserError(f"{uri} holds no finished stage (no {MARKER}); allowed: the URI of a {wanted} output")
    if output.marker.stage not in stages:
        raise UserError(f"{uri} is the output of {output.marker.stage!r}; allowed: {', '.join(stages)}")
    return output


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
    """
    folder = key.folder(root)
    done = find(folder)
    if done:
        return done
    started_at, begun = datetime.now(UTC), time.monotonic()
    attempt = Attempt(storage.join(folder, PARTS)) if resumable else new_attempt(folder, fence)
    outcome = work(attempt)
    marker = Marker(
        format=1,
        stage=key.stage,
        name=key.name,
        digest=key.digest,
        content=outcome.content or key.digest,
        code_version=key.code_version,
        config=dict(key.config),
        inputs=dict(key.inputs),
        attempt=storage.name(attempt.uri),
        files=sorted(outcome.files, key=lambda f: f.path),
        counts=dict(outcome.counts),
        summary=dict(outcome.summary),
        units=units,
        held=outcome.held,
        versions=versions(),
        started_at=started_at,
        seconds=round(time.monotonic() - begun - outcome.held.waited, 3),
    )
    return commit(folder, marker)


def new_attempt(folder: str, fence: lease.Fence | None = None) -> Attempt:
    """A place for one try, below ``folder``."""
    return Attempt(storage.join(folder, f"attempt-{uuid.uuid4().hex}"), fence)


def commit(folder: str, marker: Marker) -> Output:
    """Make ``marker`` the one that counts, or give up its attempt for the one that came first."""
    won = storage.create(storage.join(folder, MARKER), marker.model_dump_json(indent=1).encode())
    if marker.attempt == PARTS:
        storage.remove(storage.join(folder, PARTS, RECEIPTS))
    elif not won:
        storage.remove(storage.join(folder, marker.attempt))
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
