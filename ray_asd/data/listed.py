"""Tables of files, gathered row by row: what a listing holds of millions of them is Arrow, not Python objects."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import store, tables
from ray_asd.data.layouts import ParsedClip

_BATCH = 1 << 14  # rows that are Python objects at a time
_TOLD = [field.name for field in fields(ParsedClip)]

FILES = pa.schema([(name, pa.string()) for name in ("path", "uri", "version")] + [("size", pa.int64())])
"""Files below a source. ``path`` is as if each archive were a folder."""

LISTED = pa.schema(
    [
        *(pa.field(name, tables.CLIPS.field(name).type) for name in ("uri", "clip_id", *_TOLD)),
        *(FILES.field(name) for name in ("version", "size")),
    ]
)
"""Recordings and what their names say, before any is read."""


class Rows:
    """Rows of ``schema`` that become a table."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._waiting: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        self._waiting.append(row)
        if len(self._waiting) == _BATCH:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, self._schema)

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._waiting, self._schema))
        self._waiting = []


def each(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of ``table``."""
    for batch in table.to_batches(_BATCH):
        yield from batch.to_pylist()


def in_order(table: pa.Table, column: str) -> pa.Table:
    """``table`` sorted by ``column``, which costs a copy only where it is not so already."""
    values = table[column]
    if pc.all(pc.less_equal(values[:-1], values[1:])).as_py() is not False:
        return table
    return table.sort_by([(column, "ascending")])


def told(clip: ParsedClip) -> dict[str, Any]:
    """The columns of LISTED that hold what a name or CSV row says."""
    return {name: getattr(clip, name) for name in _TOLD} | {"attributes": list(clip.attributes.items())}


class Version:
    """The digest of entries in the order in which they are added."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *entries: store.Entry) -> None:
        for entry in entries:
            self._digest.update(json.dumps([entry.path, entry.size, entry.version]).encode())

    def __str__(self) -> str:
        return self._digest.hexdigest()
