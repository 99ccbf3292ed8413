"""What a listing holds of each file and recording, as rows of tables; and the digest of all of them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import pyarrow as pa

from ray_asd import store, tables
from ray_asd.data.layouts import ParsedClip

TOLD = [field.name for field in fields(ParsedClip)]

FILES = pa.schema([(name, pa.string()) for name in ("path", "uri", "version")] + [("size", pa.int64())])
"""Files below a source. ``path`` is as if each archive were a folder."""

LISTED = pa.schema(
    [
        *(pa.field(name, tables.CLIPS.field(name).type) for name in ("uri", "clip_id", *TOLD)),
        *(FILES.field(name) for name in ("version", "size")),
    ]
)
"""Recordings and what their names say, before any is read."""

REFUSED = pa.schema([("path", pa.string()), ("version", pa.string()), ("size", pa.int64()), *tables.REJECTS])
"""Entries of a listing that are no files to be read, and their REJECTS rows."""


def told(clip: ParsedClip) -> dict[str, Any]:
    """The columns of LISTED that hold what a name or CSV row says."""
    return {name: getattr(clip, name) for name in TOLD} | {"attributes": list(clip.attributes.items())}


class Version:
    """The digest of entries in the order in which they are added."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *entries: store.Entry) -> None:
        for entry in entries:
            self._digest.update(json.dumps([entry.path, entry.size, entry.version]).encode())

    def __str__(self) -> str:
        return self._digest.hexdigest()


def entries(rows: Iterable[dict[str, Any]]) -> Iterator[store.Entry]:
    """Of REFUSED rows."""
    return (store.Entry(row["path"], row["size"], row["version"]) for row in rows)
