"""What lies below a source: the recordings that its names and CSV files tell of, before any audio is read."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ray_asd import store
from ray_asd.build import digest_of
from ray_asd.data import csv_files, detection, layouts, recordings, truth, zips
from ray_asd.data.detection import Recognised
from ray_asd.data.ingested import reject
from ray_asd.data.layouts import ParsedClip
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError, unknown

_READERS = 32  # threads that ask for what a CSV file names
_MOST_AHEAD = 1024  # answers that wait


@dataclass(frozen=True)
class Source:
    """Where recordings come from and what is known of them beside their names."""

    uri: str
    layout: str = "auto"
    machine_type: str | None = None  # of a flat folder
    split: str | None = None  # where neither folder nor CSV says it
    dataset: str | None = None  # first part of every clip_id; None: the source's own name
    truth: str | None = None  # labels of anonymous clips: the organisers' list, or their evaluator's folder
    attributes: str | None = None  # a folder with the attributes that names hide

    @property
    def name(self) -> str:
        """The data set's name."""
        own = store.name(self.uri)
        return self.dataset or (own[:-4] if own.lower().endswith((".csv", ".zip")) else own)


@dataclass(frozen=True)
class Listing:
    """What was found below a source: the layout it follows, its files, and which of them are read as recordings.

    ``entries`` is all that the listing depends on; members of archives stand for their archive. ``why`` says how the
    layout was found.
    """

    layout: str
    why: str
    entries: list[store.Entry] = field(default_factory=list)
    clips: dict[str, ParsedClip] = field(default_factory=dict)  # by URI, as their ids and files
    ids: dict[str, str] = field(default_factory=dict)
    files: dict[str, store.Entry] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _File:
    """A file below a source. ``path`` is as if each archive were a folder, ``entry.path`` is what its URI ends with."""

    path: str
    uri: str
    entry: store.Entry


def read_listing(source: Source) -> Listing:
    """List ``source``, a folder, a zip file or a CSV file, and read its names and CSV files, but no audio.

    Raises:
        UserError: nothing is there, no layout fits or two do, or a CSV file is malformed.
    """
    if source.layout not in ("auto", *LAYOUTS):
        raise unknown("layout", source.layout, ["auto", *LAYOUTS])
    if not store.exists(source.uri):
        raise UserError(f"{source.uri}: nothing is there; allowed: a folder, a zip file or a CSV file, local or s3://")
    if not store.is_folder(source.uri) and not zips.is_archive(source.uri):
        return _read_csv(source)
    refused: list[tuple[store.Entry, dict[str, Any]]] = []
    files = list(_files(source.uri, refused))
    recognised = _layout(source, files)
    listing = Listing(recognised.layout, recognised.why, [file.entry for file in files])
    listing.entries.extend(entry for entry, _ in refused)
    listing.rejected.extend(row for _, row in refused)
    _name(source, files, listing)
    return listing


def _files(root: str, refused: list[tuple[store.Entry, dict[str, Any]]]) -> Iterator[_File]:
    """Every file below ``root``, those in archives too; what archives refuse goes to ``refused``."""
    if zips.is_archive(root) and not store.is_folder(root):
        above = zips.unpacked(zips.member_uri(root, "-")).removesuffix("-")
        try:
            yield from _members(store.Entry(root, 0, ""), root, refused, above)
        except zips.BadMember as error:
            raise UserError(f"{root}: {error.detail}") from error
        return
    for entry in store.listing(root):
        uri = store.join(root, entry.path)
        if not zips.is_archive(entry.path):
            yield _File(entry.path, uri, entry)
            continue
        try:
            yield from _members(entry, uri, refused)
        except zips.BadMember as error:
            refused.append((entry, reject(uri, error.reason, error.detail, entry.size)))


def _members(
    archive: store.Entry, uri: str, refused: list[tuple[store.Entry, dict[str, Any]]], above: str = ""
) -> Iterator[_File]:
    """The members of ``archive``, whose paths are given below ``above``."""
    for found in zips.members(uri):
        if isinstance(found, zips.Refused):
            row = reject(zips.member_uri(uri, found.name), found.reason, found.detail, found.size)
            refused.append((store.Entry(row["uri"], found.size, found.reason), row))
            continue
        path = zips.member_uri(archive.path, found.path)
        entry = store.Entry(path, found.size, found.version)
        yield _File(zips.unpacked(path).removeprefix(above), zips.member_uri(uri, found.path), entry)


def _layout(source: Source, files: list[_File]) -> Recognised:
    if source.layout == "auto":
        recognised = detection.detect(file.path for file in files)
    else:
        recognised = Recognised(source.layout, f"{source.layout}: as asked for")
    if recognised.layout == "csv":
        raise UserError(f"{source.uri} is a folder; layout csv takes a CSV file that names the recordings")
    return recognised


def _name(source: Source, files: list[_File], listing: Listing) -> None:
    """Every recording among ``files`` to the clips of ``listing``, the rest but sidecars to its rejects."""
    known = _attributes(files)
    clips: dict[str, ParsedClip] = {}
    places: dict[str, _File] = {}
    for file in files:
        if layouts.is_sidecar(file.path):
            continue
        if places.setdefault(file.path, file) is not file:
            detail = f"unpacked it has the same path as {places[file.path].uri}"
            listing.rejected.append(reject(file.uri, "archive_member", detail, file.entry.size))
            continue
        clip = layouts.parse(listing.layout, file.path, None, source.machine_type, source.split)
        if clip is None:
            detail = f"layout {listing.layout} does not know such a path"
            listing.rejected.append(reject(file.uri, "name_fits_no_layout", detail, file.entry.size))
            continue
        if clip.machine_type in known:
            told = known[clip.machine_type].get(store.name(file.path))
            clip = clip if told is None else replace(clip, attributes=dict(told))
        clips[file.path] = clip
    for path in _renamed(clips):
        detail = "its named copy lies in test_rename/"
        listing.rejected.append(reject(places[path].uri, "renamed", detail, places[path].entry.size))
        del clips[path]
    clips = _published(source, listing, layouts.held_out(listing.layout, clips))
    listing.clips.update((places[path].uri, clip) for path, clip in clips.items())
    listing.ids.update((places[path].uri, layouts.clip_id(source.name, path)) for path in clips)
    listing.files.update((places[path].uri, places[path].entry) for path in clips)


def _renamed(clips: dict[str, ParsedClip]) -> list[str]:
    """Anonymous test clips beside a ``test_rename/`` folder, where the organisers' baseline puts named copies."""
    named = {path.rsplit("/", 2)[0] for path in clips if "/test_rename/" in path}
    if not named:
        return []
    return [path for path, clip in clips.items() if clip.label is None and path.rsplit("/", 2)[0] in named]


def _attributes(files: list[_File]) -> dict[str, dict[str, dict[str, str]]]:
    """Attributes by machine type and file name, from the attribute CSVs among ``files``."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for file in files:
        machine_type = layouts.attributes_of(file.path)
        if machine_type:
            found.setdefault(machine_type, {}).update(csv_files.read_attributes(recordings.at(file.uri), file.uri))
    return found


def _published(source: Source, listing: Listing, clips: dict[str, ParsedClip]) -> dict[str, ParsedClip]:
    """``clips`` by path with the labels and attributes that the source names beside them."""
    labels = truth.read_labels(source.truth, listing.layout) if source.truth else None
    attributes = truth.read_attributes(source.attributes) if source.attributes else None
    if labels is None and attributes is None:
        return clips
    for published in filter(None, (labels, attributes)):
        listing.entries.extend(published.entries)
    return {path: truth.joined(path, clip, labels, attributes) for path, clip in clips.items()}


def _read_csv(source: Source) -> Listing:
    if source.layout not in ("auto", "csv"):
        raise UserError(f"{source.uri} is a file; layout {source.layout} takes a folder")
    data = store.read(source.uri)
    clips = csv_files.read_csv(data, source.uri, source.split)
    folder = store.parent(source.uri)
    entries = [store.Entry(store.name(source.uri), len(data), digest_of(data.decode()))]
    listing = Listing("csv", f"csv: {store.name(source.uri)} names the recordings", entries)
    uris = [path if store.is_remote(path) or path.startswith("/") else store.join(folder, path) for path in clips]
    files = recordings.ahead(_file_or_reject, uris, _READERS, _MOST_AHEAD)
    for (relative, clip), uri, found in zip(clips.items(), uris, files, strict=True):
        if isinstance(found, dict):
            listing.rejected.append(found)
            continue
        listing.entries.append(found)
        listing.clips[uri] = clip
        listing.ids[uri] = layouts.clip_id(source.name, relative)
        listing.files[uri] = found
    return listing


def _file_or_reject(uri: str) -> store.Entry | dict[str, Any]:
    """The file that a CSV file names, or a REJECTS row."""
    try:
        found = zips.stat_member(uri) if zips.is_member(uri) else store.stat(uri)
    except FileNotFoundError:
        found = None
    except OSError as error:
        return reject(uri, "unreadable", str(error), None)
    except zips.BadMember as error:
        return reject(uri, error.reason, error.detail, None)
    return found or reject(uri, "missing", "named by the CSV file, but not there", None)
