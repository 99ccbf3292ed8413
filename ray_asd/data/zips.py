"""Recordings inside zip files, read where they lie: nothing is unpacked to disk.

The URI of a member is ``<archive>!/<member>``. A directory is judged before anything is expanded: names that would
leave the archive's folder, links, encrypted or oddly compressed members, members that share bytes and members that
expand beyond a limit are refused, each by name. Only stored and deflated members are taken, since zlib alone can be
told where to stop. The format is PKWARE's APPNOTE 6.3; why members must not overlap: Fifield 2019, "A better zip bomb".
"""

import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from ray_asd import store
from ray_asd.errors import Rejected

MAX_DIRECTORY = 64 << 20  # bytes: half a million members
MAX_MEMBER = 1 << 30  # bytes of one expanded member
MAX_RATIO = 100  # expanded to compressed; recordings reach 10, silence and bombs 1000
FREE_SIZE = 8 << 20  # bytes that a member may expand to whatever its ratio: digital silence is not an attack
FREE_TOTAL = 1 << 30  # bytes that a whole archive may expand to whatever its ratio
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # general purpose bits: encrypted, strongly, with its header masked
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MEMBER = re.compile(r"(?i)(?P<archive>.+?\.zip)!/(?P<member>.+)", re.DOTALL)
_reading = threading.Lock()  # a directory is large, and many threads ask for the same one at once
_DAMAGE = (zipfile.BadZipFile, ValueError, EOFError, struct.error, NotImplementedError, OverflowError)


class BadMember(Rejected):
    """An archive or member that is not taken."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A member that is not taken, by the name it claims."""

    name: str
    size: int  # it claims to expand to
    reason: str
    detail: str


def is_archive(path: str) -> bool:
    """Whether the name promises a zip file."""
    return path.lower().endswith(".zip")


def is_member(uri: str) -> bool:
    """Whether ``uri`` is that of a member of an archive."""
    return _MEMBER.fullmatch(uri) is not None


def member_uri(archive: str, name: str) -> str:
    """The URI of the member called ``name``."""
    return f"{archive}!/{name}"


def unpacked(path: str) -> str:
    """Where a member would lie if each archive were a folder of its name: ``a.zip!/b`` becomes ``a/b``."""
    found = _MEMBER.fullmatch(path)
    return f"{found['archive'][:-4]}/{found['member']}" if found else path


def members(uri: str) -> Iterator[store.Entry | Refused]:
    """The members of the archive at ``uri`` in its own order; of nothing but its directory is anything read.

    An entry's version is its CRC-32. Folders and hidden files (leading dot) are left out.

    Raises:
        BadMember: it has no directory that can be read, or one of an absurd size, or expands to an absurd size.
        FileNotFoundError: there is nothing at ``uri``.
    """
    found = store.stat(uri)
    if found is None:
        raise FileNotFoundError(uri)
    taken, refused = _directory(uri, found.size, found.version)
    yield from refused
    yield from (store.Entry(name, info.file_size, _version(info)) for name, info in taken.items())


def read(uri: str) -> bytes:
    """The content of one member, whose length and CRC-32 are those that its archive states.

    Raises:
        BadMember: the archive or member is damaged or refused.
        FileNotFoundError: there is no such archive or member.
    """
    archive, info = _find(uri)
    with store.open_read(archive) as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise BadMember("archive_member", f"{info.filename}: its own header is not where the directory says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, os.SEEK_CUR)
        return _expanded(info, file.read(info.compress_size))


def stat_member(uri: str) -> store.Entry:
    """The member at ``uri``, its path being ``uri`` itself, as its archive's directory describes it.

    Raises:
        BadMember, FileNotFoundError: as ``read``.
    """
    _, info = _find(uri)
    return store.Entry(uri, info.file_size, _version(info))


def _version(info: zipfile.ZipInfo) -> str:
    return f"{info.CRC:08x}"


def _find(uri: str) -> tuple[str, zipfile.ZipInfo]:
    """The archive of the member at ``uri``, and the member's place in it."""
    match = _MEMBER.fullmatch(uri)
    found = store.stat(match["archive"]) if match else None
    if match is None or found is None:
        raise FileNotFoundError(uri)
    taken, refused = _directory(match["archive"], found.size, found.version)
    if match["member"] in taken:
        return match["archive"], taken[match["member"]]
    for member in refused:
        if member.name == match["member"]:
            raise BadMember(member.reason, member.detail)
    raise FileNotFoundError(uri)


def _expanded(info: zipfile.ZipInfo, data: bytes) -> bytes:
    if info.compress_type == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
        except zlib.error as error:
            raise BadMember("archive_member", f"{info.filename}: {error}") from error
    if len(data) != info.file_size:
        raise BadMember(
            "archive_member", f"{info.filename}: {len(data)} bytes or more, not the stated {info.file_size}"
        )
    if zlib.crc32(data) != info.CRC:
        raise BadMember("archive_member", f"{info.filename}: its content is damaged (CRC-32)")
    return data


def _directory(uri: str, size: int, version: str) -> tuple[dict[str, zipfile.ZipInfo], list[Refused]]:
    """The members that are taken by name, and the rest, of an archive as it is now (``version``)."""
    with _reading:
        return _read_directory(uri, size, version)


@lru_cache(maxsize=16)
def _read_directory(uri: str, size: int, version: str) -> tuple[dict[str, zipfile.ZipInfo], list[Refused]]:
    del version  # an archive that has changed is another one
    with store.open_read(uri) as file:
        try:
            archive = zipfile.ZipFile(_Careful(file))  # type: ignore[call-overload]
        except _DAMAGE as error:
            raise BadMember("not_an_archive", f"its directory cannot be read: {error}") from error
        listed, end = archive.infolist(), archive.start_dir
    for info in listed:
        info.filename = _normal(info.orig_filename)
    files = [info for info in listed if not info.filename.endswith("/")]
    total = sum(info.file_size for info in files)
    if total > max(FREE_TOTAL, MAX_RATIO * size):
        raise BadMember("archive_bomb", f"{size} bytes would expand to {total}; the limit is {MAX_RATIO} times")
    times = Counter(info.filename for info in files)
    shared = _overlapping(files, end)
    taken: dict[str, zipfile.ZipInfo] = {}
    refused: list[Refused] = []
    for info in files:
        why = _escapes(info) or _expands(info, id(info) in shared) or _unreadable(info, times[info.filename])
        if why:
            refused.append(Refused(info.orig_filename, info.file_size, *why))
        elif not any(part.startswith(".") for part in info.filename.split("/")):
            taken[info.filename] = info
    return taken, refused


def _normal(name: str) -> str:
    """The name as APPNOTE 4.4.17 wants it: some tools put backslashes between its parts, or ``./`` before them."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    is_folder = path.endswith(("/", "/.")) or path == "."
    return "/" * path.startswith("/") + "/".join(parts) + "/" * is_folder


def _escapes(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if not name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return "archive_escape", "the name is not a path below the archive's folder"
    if ".." in name.split("/"):
        return "archive_escape", "the path has a '..' part"
    if kind not in (0, stat.S_IFREG):
        return "archive_escape", "a link or device, not a file"
    return None


def _expands(info: zipfile.ZipInfo, shares: bool) -> tuple[str, str] | None:
    if shares:
        return "archive_bomb", "it shares bytes with another member or the directory"
    if info.file_size > MAX_MEMBER:
        return "archive_bomb", f"it would expand to {info.file_size} bytes; the limit is {MAX_MEMBER}"
    if info.file_size > max(FREE_SIZE, MAX_RATIO * info.compress_size):
        return "archive_bomb", f"{info.compress_size} bytes would expand to {info.file_size}; limit: {MAX_RATIO} times"
    return None


def _unreadable(info: zipfile.ZipInfo, times: int) -> tuple[str, str] | None:
    if info.header_offset < 0:
        return "archive_member", "it is said to begin before the archive"
    if times > 1:
        return "archive_member", f"its name occurs {times} times"
    if info.flag_bits & _ENCRYPTED:
        return "archive_member", "it is encrypted"
    if info.compress_type not in _METHODS:
        return "archive_member", f"compression method {info.compress_type}; allowed: 0 (stored) and 8 (deflated)"
    if info.compress_size > info.file_size + info.file_size // 64 + 1024:
        return "archive_member", f"{info.compress_size} compressed bytes are more than {info.file_size} can need"
    return None


def _overlapping(files: list[zipfile.ZipInfo], end: int) -> set[int]:
    """``id`` of each member that shares bytes with another or with the directory that begins at ``end``."""
    shared: set[int] = set()
    furthest, reaching = 0, None
    for info in sorted(files, key=lambda info: info.header_offset):
        last = info.header_offset + _LOCAL_HEADER.size + len(info.orig_filename) + info.compress_size
        if reaching is not None and info.header_offset < furthest:
            shared |= {id(info), id(reaching)}
        if last > end:
            shared.add(id(info))
        if last > furthest:
            furthest, reaching = last, info
    return shared


class _Careful:
    """A file for ``zipfile`` that refuses to read a directory of absurd size at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise ValueError(f"it states {size} bytes; the limit is {MAX_DIRECTORY}")
        return self.file.read(size)
