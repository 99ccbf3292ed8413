"""What lies below a source: the recordings that its names and CSV files tell of, before any audio is read."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from ray_asd import store, tables
from ray_asd.data import csv_files, detection, formats, layouts, recordings, zips
from ray_asd.data.detection import Recognised
from ray_asd.data.ingested import reject, unread
from ray_asd.data.listed import FILES, LISTED, REFUSED, Version, entries, told
from ray_asd.data.names import Misnamed, Names
from ray_asd.data.patterns import Pattern
from ray_asd.data.source import Source
from ray_asd.data.spooled import Spooled
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError, unknown

_READERS = 32  # threads that ask for what a CSV file names
_MOST_AHEAD = 1024  # answers that wait
_PART = 1 << 23  # bytes of a CSV file that are read at a time

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """What was found below a source: the layout it follows, and which of its files are read as recordings.

    ``why`` says how the layout was found. ``clips`` are LISTED in order of clip_id, ``rejected`` rows of REJECTS;
    ``version`` is the digest of all that the listing depends on, members of archives standing for their archive.
    Millions of rows take no memory.
    """

    layout: str
    why: str
    version: str
    clips: Spooled
    rejected: Spooled


@dataclass(frozen=True, slots=True)
class _File:
    """A file below a source. ``path`` is as if each archive were a folder, ``entry.path`` is what its URI ends with."""

    path: str
    uri: str
    entry: store.Entry


def read_listing(source: Source) -> Listing:
    """List ``source``, a folder, a zip file or a CSV file, and read its names and CSV files, but no audio.

    Raises:
        UserError: nothing is there, no layout fits or two do, or a CSV file or pattern is malformed.
    """
    pattern = _pattern(source)
    if not store.exists(source.uri):
        raise UserError(f"{source.uri}: nothing is there; allowed: a folder, a zip file or a CSV file, local or s3://")
    if not store.is_folder(source.uri) and not zips.is_archive(source.uri):
        _check_text(source.uri)
        return _read_csv(source)
    if store.holds_outputs(source.uri):
        raise UserError(f"{source.uri}: outputs were written there; allowed: a folder of recordings, outputs below it")
    version, files, refused = Version(), Spooled(FILES), Spooled(REFUSED)
    for file in _files(source.uri, refused):
        version.add(file.entry)
        files.add(path=file.path, uri=file.uri, version=file.entry.version, size=file.entry.size)
    version.add(*entries(refused.rows()))
    recognised = _layout(source, files, refused)
    names = Names(source, recognised.layout, pattern, files)
    version.add(*names.entries)
    rejected = Spooled(tables.REJECTS)
    for table in refused.tables():
        rejected.write(table.select(tables.REJECTS.names))
    clips = _named(source, files, names, rejected)
    return Listing(recognised.layout, recognised.why, str(version), clips.in_order("clip_id"), rejected)


def _pattern(source: Source) -> Pattern | None:
    """
    Raises:
        UserError: there is no such layout, or its pattern is missing, malformed or one too many.
    """
    if source.layout not in ("auto", *LAYOUTS):
        raise unknown("layout", source.layout, ["auto", *LAYOUTS])
    if source.pattern is None:
        if source.layout == "pattern":
            raise UserError("layout pattern lacks one; allowed: --pattern such as {machine_type}/{machine_id}/*.wav")
        return None
    if source.layout not in ("auto", "pattern"):
        raise UserError(f"layout {source.layout} with a pattern; allowed: one of them")
    return Pattern(source.pattern, source.machine_type, source.split)


def _check_text(uri: str) -> None:
    """
    Raises:
        UserError: the file is a recording, another kind of archive, or none that can be read.
    """
    try:
        with store.open_read(uri) as file:
            what = formats.no_text(file.read(formats.START))
    except OSError as error:
        if store.is_to_blame(error):
            raise
        allowed = "allowed: a folder, a zip file or a CSV file that may be read"
        raise UserError(f"{uri}: {error.strerror or error}; {allowed}") from error
    if what:
        raise UserError(
            f"{uri} is {what}; allowed: a folder of recordings, a zip file of them or a CSV file naming them"
        )


def _named(source: Source, files: Spooled, names: Names, rejected: Spooled) -> Spooled:
    """LISTED of ``files``; what is no recording goes to ``rejected``."""
    clips = Spooled(LISTED)
    for row in files.rows():
        clip = names.of(row["path"], row["uri"])
        if isinstance(clip, Misnamed):
            rejected.add(**reject(row["uri"], clip.reason, clip.detail, row["size"]))
        elif clip:
            clips.add(clip_id=f"{source.name}/{row.pop('path')}", **row, **told(clip))
    return clips


def _files(root: str, refused: Spooled) -> Iterator[_File]:
    """Every file below ``root``, those in archives too; what archives refuse goes to ``refused``."""
    if zips.is_archive(root) and not store.is_folder(root):
        above = zips.unpacked(zips.member_uri(root, "-")).removesuffix("-")
        try:
            yield from _members(store.Entry(root, 0, ""), root, refused, above)
        except (zips.BadMember, OSError) as error:
            raise UserError(f"{root}: {error.detail if isinstance(error, zips.BadMember) else error}") from error
        return
    for entry in store.survey(root):
        name = _printable(entry.path)
        uri = store.join(root, name)
        if name != entry.path or entry.fault:
            reason, why = ("no_file", entry.fault) if entry.fault else ("name_fits_no_layout", "its name is not UTF-8")
            row = reject(uri, reason, _printable(why), entry.size)
            refused.add(path=name, size=entry.size, version=entry.version, **row)
            continue
        if not zips.is_archive(entry.path):
            yield _File(entry.path, uri, entry)
            continue
        try:
            yield from _members(entry, uri, refused)
        except zips.BadMember as error:
            row = reject(uri, error.reason, error.detail, entry.size)
            refused.add(path=entry.path, size=entry.size, version=entry.version, **row)
        except OSError as error:
            row = unread(uri, error, entry.size)
            refused.add(path=entry.path, size=entry.size, version=entry.version, **row)


def _printable(name: str) -> str:
    """``name``, with what is not UTF-8 in it spelt out."""
    return name.encode(errors="backslashreplace").decode()


def _members(archive: store.Entry, uri: str, refused: Spooled, above: str = "") -> Iterator[_File]:
    """The members of ``archive``, whose paths are given below ``above``."""
    for found in zips.members(uri):
        if isinstance(found, zips.Refused):
            row = reject(zips.member_uri(uri, found.name), found.reason, found.detail, found.size)
            refused.add(path=row["uri"], size=found.size, version=found.reason, **row)
            continue
        path = zips.member_uri(archive.path, found.path)
        entry = store.Entry(path, found.size, found.version)
        yield _File(zips.unpacked(path).removeprefix(above), zips.member_uri(uri, found.path), entry)


def _layout(source: Source, files: Spooled, refused: Spooled) -> Recognised:
    if source.pattern is not None:
        recognised = Recognised("pattern", f"pattern: {source.pattern}")
    elif source.layout == "auto":
        first = next(iter(refused.rows()), None)
        beside = f"others refused, the first {first['uri']}: {first['detail']}" if first else ""
        paths = (path for table in files.tables() for path in table["path"].to_pylist())
        recognised = detection.detect(paths, beside)
    else:
        recognised = Recognised(source.layout, f"{source.layout}: as asked for")
    if recognised.layout == "csv":
        raise UserError(f"{source.uri} is a folder; layout csv takes a CSV file that names the recordings")
    return recognised


def _read_csv(source: Source) -> Listing:
    if source.pattern is not None or source.layout not in ("auto", "csv"):
        layout = "pattern" if source.pattern is not None else source.layout
        raise UserError(f"{source.uri} is a file; layout {layout} takes a folder")
    name, folder = store.name(source.uri), store.parent(source.uri)
    version, listed, rejected = Version(), Spooled(LISTED), Spooled(tables.REJECTS)
    with tempfile.TemporaryFile() as copy:
        try:
            version.add(_copied(source.uri, copy))
        except OSError as error:
            raise UserError(f"{source.uri}: {error}; allowed: a folder, a zip file or a CSV file") from error
        named = csv_files.read_csv(copy, source.uri, source.split)

    def found(row: Row) -> tuple[Row, store.Entry | Row]:
        path = row.pop("uri")
        uri = path if store.is_remote(path) or path.startswith("/") else store.join(folder, path)
        return row | {"uri": uri, "clip_id": layouts.clip_id(source.name, path)}, _file_or_reject(uri)

    for row, file in recordings.ahead(found, named.rows(), _READERS, _MOST_AHEAD):
        if isinstance(file, dict):
            rejected.add(**file)
            continue
        version.add(file)
        listed.add(version=file.version, size=file.size, **row)
    why = f"csv: {name} names the recordings"
    return Listing("csv", why, str(version), listed.in_order("clip_id"), rejected)


def _copied(uri: str, copy: IO[bytes]) -> store.Entry:
    """The CSV file at ``uri``, whose text is then in ``copy``, at its beginning."""
    digest = hashlib.sha256()

    def parts() -> Iterator[bytes]:
        with store.open_read(uri) as file:
            for part in iter(lambda: file.read(_PART), b""):
                digest.update(part)
                copy.write(part)
                yield part

    csv_files.check_text(parts(), uri)
    size = copy.tell()
    copy.seek(0)
    return store.Entry(store.name(uri), size, digest.hexdigest())


def _file_or_reject(uri: str) -> store.Entry | Row:
    """The file that a CSV file names, or a REJECTS row."""
    try:
        found = zips.stat_member(uri) if zips.is_member(uri) else store.stat(uri)
    except FileNotFoundError:
        found = None
    except OSError as error:
        return unread(uri, error, None)
    except zips.BadMember as error:
        return reject(uri, error.reason, error.detail, None)
    if found is None and not store.is_remote(uri) and store.exists(uri):
        return reject(uri, "no_file", "named by the CSV file, but a folder, FIFO, socket or device", None)
    return found or reject(uri, "missing", "named by the CSV file, but not there", None)
