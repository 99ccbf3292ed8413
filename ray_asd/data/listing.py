"""What lies below a source: the recordings that its names and CSV files tell of, before any audio is read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ray_asd import store
from ray_asd.data import csv_files, detection, layouts, recordings, zips
from ray_asd.data.detection import Recognised
from ray_asd.data.ingested import reject
from ray_asd.data.listed import FILES, LISTED, Rows, Version, each, in_order, told
from ray_asd.data.names import Misnamed, Names
from ray_asd.data.source import Source
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError, unknown

_READERS = 32  # threads that ask for what a CSV file names
_MOST_AHEAD = 1024  # answers that wait

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """What was found below a source: the layout it follows, and which of its files are read as recordings.

    ``why`` says how the layout was found. ``clips`` are LISTED in order of clip_id, ``rejected`` rows of REJECTS;
    ``version`` is the digest of all that the listing depends on, members of archives standing for their archive.
    """

    layout: str
    why: str
    version: str
    clips: pa.Table
    rejected: list[Row]


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
    version, found, refused = Version(), Rows(FILES), list[tuple[store.Entry, Row]]()
    for file in _files(source.uri, refused):
        version.add(file.entry)
        found.add(path=file.path, uri=file.uri, version=file.entry.version, size=file.entry.size)
    version.add(*(entry for entry, _ in refused))
    files = found.table()
    recognised = _layout(source, files)
    names = Names(source, recognised.layout, files)
    version.add(*names.entries)
    rejected = [row for _, row in refused]
    clips = _named(source, files, names, rejected)
    return Listing(recognised.layout, recognised.why, str(version), in_order(clips, "clip_id"), rejected)


def _named(source: Source, files: pa.Table, names: Names, rejected: list[Row]) -> pa.Table:
    """LISTED of ``files``; what is no recording goes to ``rejected``."""
    clips = Rows(LISTED)
    for row in each(files):
        clip = names.of(row["path"], row["uri"])
        if isinstance(clip, Misnamed):
            rejected.append(reject(row["uri"], clip.reason, clip.detail, row["size"]))
        elif clip:
            clip_id = layouts.clip_id(source.name, row.pop("path"))
            clips.add(clip_id=clip_id, **row, **told(clip))
    return clips.table()


def _files(root: str, refused: list[tuple[store.Entry, Row]]) -> Iterator[_File]:
    """Every file below ``root``, those in archives too; what archives refuse goes to ``refused``."""
    if zips.is_archive(root) and not store.is_folder(root):
        above = zips.unpacked(zips.member_uri(root, "-")).removesuffix("-")
        try:
            yield from _members(store.Entry(root, 0, ""), root, refused, above)
        except zips.BadMember as error:
            raise UserError(f"{root}: {error.detail}") from error
        return
    for entry in store.listing(root):
        name = entry.path.encode(errors="backslashreplace").decode()
        uri = store.join(root, name)
        if name != entry.path:
            row = reject(uri, "name_fits_no_layout", "its name is not UTF-8", entry.size)
            refused.append((store.Entry(name, entry.size, entry.version), row))
            continue
        if not zips.is_archive(entry.path):
            yield _File(entry.path, uri, entry)
            continue
        try:
            yield from _members(entry, uri, refused)
        except zips.BadMember as error:
            refused.append((entry, reject(uri, error.reason, error.detail, entry.size)))


def _members(
    archive: store.Entry, uri: str, refused: list[tuple[store.Entry, Row]], above: str = ""
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


def _layout(source: Source, files: pa.Table) -> Recognised:
    if source.layout == "auto":
        recognised = detection.detect(row["path"] for row in each(files.select(["path"])))
    else:
        recognised = Recognised(source.layout, f"{source.layout}: as asked for")
    if recognised.layout == "csv":
        raise UserError(f"{source.uri} is a folder; layout csv takes a CSV file that names the recordings")
    return recognised


def _read_csv(source: Source) -> Listing:
    if source.layout not in ("auto", "csv"):
        raise UserError(f"{source.uri} is a file; layout {source.layout} takes a folder")
    data = store.read(source.uri)
    clips = csv_files.read_csv(data, source.uri, source.split)
    folder = store.parent(source.uri)
    name = store.name(source.uri)
    version, listed, rejected = Version(), Rows(LISTED), list[Row]()
    version.add(store.Entry(name, len(data), hashlib.sha256(data).hexdigest()))
    uris = [path if store.is_remote(path) or path.startswith("/") else store.join(folder, path) for path in clips]
    files = recordings.ahead(_file_or_reject, uris, _READERS, _MOST_AHEAD)
    for (relative, clip), uri, found in zip(clips.items(), uris, files, strict=True):
        if isinstance(found, dict):
            rejected.append(found)
            continue
        version.add(found)
        clip_id = layouts.clip_id(source.name, relative)
        listed.add(uri=uri, clip_id=clip_id, version=found.version, size=found.size, **told(clip))
    return Listing(
        "csv", f"csv: {name} names the recordings", str(version), in_order(listed.table(), "clip_id"), rejected
    )


def _file_or_reject(uri: str) -> store.Entry | Row:
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
