"""What lies below a source: the recordings that its names and CSV files tell of, before any audio is read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ray_asd import storage
from ray_asd.build import digest_of
from ray_asd.data import csv_files, layouts
from ray_asd.data.ingested import reject
from ray_asd.data.layouts import ParsedClip
from ray_asd.errors import UserError, unknown


@dataclass(frozen=True)
class Source:
    """Where recordings come from and what is known of them beside their names."""

    uri: str
    layout: str = "auto"
    machine_type: str | None = None  # of a flat folder
    split: str | None = None  # where neither folder nor CSV says it
    dataset: str | None = None  # first part of every clip_id; None: the source's own name

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.dataset or storage.name(self.uri).removesuffix(".csv")


@dataclass(frozen=True)
class Listing:
    """What was found below a source: the layout it follows, its files, and which of them are read as recordings."""

    layout: str
    entries: list[storage.Entry]
    clips: dict[str, ParsedClip]  # by URI
    ids: dict[str, str]
    rejected: list[dict[str, Any]]


def read_listing(source: Source) -> Listing:
    """List ``source`` and read its names and CSV files, but no audio."""
    if source.layout not in ("auto", *layouts.LAYOUTS):
        raise unknown("layout", source.layout, ["auto", *layouts.LAYOUTS])
    if not storage.exists(source.uri):
        raise UserError(f"{source.uri}: nothing is there; allowed: a folder or a CSV file, local or s3://")
    if not storage.is_folder(source.uri):
        return _read_csv(source)
    entries = list(storage.listing(source.uri))
    layout = layouts.detect(entry.path for entry in entries) if source.layout == "auto" else source.layout
    if layout == "csv":
        raise UserError(f"{source.uri} is a folder; layout csv takes a CSV file that names the recordings")
    attributes = _attributes(source.uri, entries)
    listing = Listing(layout, entries, {}, {}, [])
    for entry in entries:
        if layouts.is_sidecar(entry.path):
            continue
        uri = storage.join(source.uri, entry.path)
        clip = layouts.parse(layout, entry.path, None, source.machine_type, source.split)
        if clip is None:
            detail = f"layout {layout} does not know such a path"
            listing.rejected.append(reject(uri, "name_fits_no_layout", detail, entry.size))
            continue
        known = attributes.get(clip.machine_type, {}).get(storage.name(entry.path))
        listing.clips[uri] = clip if known is None else _with_attributes(clip, known)
        listing.ids[uri] = layouts.clip_id(source.name, entry.path)
    return listing


def _with_attributes(clip: ParsedClip, attributes: Mapping[str, str]) -> ParsedClip:
    return ParsedClip(**(asdict(clip) | {"attributes": dict(attributes)}))


def _attributes(root: str, entries: list[storage.Entry]) -> dict[str, dict[str, dict[str, str]]]:
    """Attributes by machine type and file name, from the attribute CSVs among ``entries``."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for entry in entries:
        machine_type = layouts.attributes_of(entry.path)
        if machine_type:
            uri = storage.join(root, entry.path)
            found.setdefault(machine_type, {}).update(csv_files.read_attributes(storage.read(uri), uri))
    return found


def _read_csv(source: Source) -> Listing:
    if source.layout not in ("auto", "csv"):
        raise UserError(f"{source.uri} is a file; layout {source.layout} takes a folder")
    data = storage.read(source.uri)
    clips = csv_files.read_csv(data, source.uri, source.split)
    folder = storage.parent(source.uri)
    entries = [storage.Entry(storage.name(source.uri), len(data), digest_of(data.decode()))]
    listing = Listing("csv", entries, {}, {}, [])
    for relative, clip in clips.items():
        uri = relative if storage.is_remote(relative) or relative.startswith("/") else storage.join(folder, relative)
        found = storage.stat(uri)
        if found is None:
            listing.rejected.append(reject(uri, "missing", "named by the CSV file, but not there", None))
            continue
        listing.entries.append(found)
        listing.clips[uri] = clip
        listing.ids[uri] = layouts.clip_id(source.name, relative)
    return listing
