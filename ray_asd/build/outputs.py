"""What finished stages left: a marker that lists the files that count, found by its place and read back checked."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_asd import store
from ray_asd.errors import StageError, UserError

MARKER = "marker.json"
_READERS = 16


@dataclass(frozen=True, slots=True)
class File:
    """A committed file: path below its attempt, size in bytes, sha256 in hex; of a table, the number of its rows.

    Of the largest outputs there are tens of thousands, hence no model of its own.
    """

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
        return store.join(self.uri, self.marker.attempt, path)

    def read(self, path: str) -> bytes:
        """Content of one committed file, checked against its recorded digest.

        Raises:
            StageError: the marker does not list it, or its content is another than was committed.
        """
        digest = self._listed(path).sha256
        data = store.read(self.file_uri(path))
        if hashlib.sha256(data).hexdigest() != digest:
            raise StageError(f"{self.file_uri(path)}: its content is not what was committed")
        return data

    def table(self, folder: str, schema: pa.Schema | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The committed Parquet files below ``folder`` as one table, or some of its columns; empty with ``schema`` when
        there are none."""
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda file: self.part(file.path, columns), self.files(folder)))
        if not parts and schema is not None:
            empty = schema.empty_table()
            return empty.select(list(columns)) if columns else empty
        return pa.concat_tables(parts)

    def part(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One committed Parquet file, or some of its columns."""
        return pq.read_table(pa.BufferReader(self.read(path)), columns=columns and list(columns))

    def fetch(self, path: str) -> Path:
        """A local file with the content of one committed file (large ones: nothing is read into memory)."""
        return store.fetch(self.file_uri(path), self._listed(path).sha256)

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
        marker = Marker.model_validate_json(store.read(store.join(folder, MARKER)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in mistake["loc"])
        place = store.join(folder, MARKER)
        raise StageError(f"{place}: no marker of this version: {where}{mistake['msg']}") from error
    return Output(folder, marker)


def resolve(uri: str, *stages: str) -> Output:
    """The finished stage that a user named by URI, which must be one of ``stages``.

    Raises:
        UserError: no marker stands there, or it is another stage's.
    """
    uri = store.absolute(uri)
    output = find(uri)
    if output is None:
        wanted = " or ".join(stages)
        raise UserError(f"{uri} holds no finished stage (no {MARKER}); allowed: the URI of a {wanted} output")
    if output.marker.stage not in stages:
        raise UserError(f"{uri} is the output of {output.marker.stage!r}; allowed: {', '.join(stages)}")
    return output
