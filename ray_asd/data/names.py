"""What the names of a source's files say, with what its own CSV files and published lists add to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import store
from ray_asd.data import csv_files, layouts, recordings, truth, zips
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.patterns import Pattern
from ray_asd.data.source import Source
from ray_asd.data.spooled import Spooled
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError

_NAMED_COPIES = "/test_rename/"  # where the organisers' baseline puts copies of anonymous test clips


@dataclass(frozen=True, slots=True)
class Misnamed:
    """Why a file is no clip; ``reason`` is a key of ``reasons.REJECTED``."""

    reason: str
    detail: str


class Names:
    """What can be told of the recordings of ``source`` among all its ``files``, rows of FILES, by layout or pattern."""

    def __init__(self, source: Source, layout: str, pattern: Pattern | None, files: Spooled) -> None:
        self._source, self._layout, self._pattern = source, layout, pattern
        self._attributes = _attributes(files)
        self._labels = truth.read_labels(source.truth, layout) if source.truth else None
        self._overlay = truth.read_attributes(source.attributes) if source.attributes else None
        self._firsts = _firsts(files)
        self._renamed = set() if pattern else self._machines_with_named_copies(files)
        self._held_out = self._moved_to_the_test(files) if LAYOUTS[layout].holds_out else {}

    @property
    def entries(self) -> list[store.Entry]:
        """Of the published lists."""
        return [entry for published in (self._labels, self._overlay) if published for entry in published.entries]

    def of(self, path: str, uri: str) -> ParsedClip | Misnamed | None:
        """What is known of the recording at ``path``; None for what belongs to a data set without being one."""
        if (first := self._firsts.get(path, uri)) != uri and not layouts.is_sidecar(path):
            return Misnamed("archive_member", f"unpacked it has the same path as {first}")
        exact, path = path, layouts.collapsed(path)
        if layouts.is_sidecar(path):
            return None
        clip = self._parse(path)
        if not isinstance(clip, ParsedClip):
            why = clip or f"layout {self._layout} does not know such a path"
            if layouts.is_other_audio(path):
                why = f"recordings are known by names that end with {' or '.join(layouts.ENDINGS)}"
            return Misnamed("name_fits_no_layout", why)
        if clip.label is None and _machine(path) in self._renamed:
            return Misnamed("renamed", "its named copy lies in test_rename/")
        if clip.split == "train" and exact <= self._held_out.get(_machine(path), ""):
            clip = replace(clip, split="test")
        told = self._attributes.get(clip.machine_type, {}).get(store.name(path))
        clip = clip if told is None else replace(clip, attributes=dict(told))
        return truth.joined(path, clip, self._labels, self._overlay)

    def _parse(self, path: str) -> ParsedClip | str | None:
        path = layouts.collapsed(path)
        if self._pattern:
            return self._pattern.read(path)
        return layouts.parse(self._layout, path, None, self._source.machine_type, self._source.split)

    def _machines_with_named_copies(self, files: Spooled) -> set[str]:
        copies = _some(files, lambda table: pc.match_substring(table["path"], _NAMED_COPIES))
        return {_machine(row["path"]) for row in copies if self._parse(row["path"])}

    def _moved_to_the_test(self, files: Spooled) -> dict[str, str]:
        """By machine, the last path of the clips that are moved."""
        by_machine = Spooled(pa.schema([("machine", pa.string()), ("path", pa.string())]))
        for row in files.rows():
            by_machine.add(machine=_machine(row["path"]), path=row["path"])
        last: dict[str, str] = {}
        for machine, rows in groupby(by_machine.in_order("machine").rows(), itemgetter("machine")):
            parsed = ((row["path"], self._parse(row["path"])) for row in rows)
            clips = {path: clip for path, clip in parsed if isinstance(clip, ParsedClip)}
            moved = layouts.held_out(self._layout, clips)
            last[machine] = max((path for path, clip in moved.items() if clip.split != clips[path].split), default="")
        return last


def _machine(path: str) -> str:
    """The folder of the machine, which has one for each split."""
    return layouts.collapsed(path).rsplit("/", 2)[0]


def _some(files: Spooled, which: Callable[[pa.Table], pa.ChunkedArray]) -> Iterator[dict[str, Any]]:
    for table in files.tables():
        yield from table.filter(which(table)).to_pylist()


def _attributes(files: Spooled) -> dict[str, dict[str, dict[str, str]]]:
    """Attributes by machine type and file name, from the attribute CSVs among ``files``."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in _some(files, lambda table: pc.ends_with(table["path"], ".csv")):
        machine_type = layouts.attributes_of(layouts.collapsed(row["path"]))
        if machine_type:
            told = csv_files.read_attributes(_text(row["uri"]), row["uri"])
            found.setdefault(machine_type, {}).update(told)
    return found


def _text(uri: str) -> bytes:
    try:
        return recordings.at(uri)
    except OSError as error:
        raise UserError(f"{uri}: {error}; allowed: attributes that can be read, or none") from error


def _firsts(files: Spooled) -> dict[str, str]:
    """Where several files have the same path, as can be when archives are taken for folders: the URI of the first."""
    member = zips.member_uri("", "")
    if not any(pc.any(pc.match_substring(table["uri"], member)).as_py() for table in files.tables()):
        return {}
    firsts: dict[str, str] = {}
    for path, rows in groupby(files.in_order("path").rows(), itemgetter("path")):
        first, *others = rows
        if others:
            firsts[path] = first["uri"]
    return firsts
