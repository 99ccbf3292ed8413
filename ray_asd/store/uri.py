"""The one door to files and objects: every URI is a local path or ``s3://bucket/key``.

s3fs is the only client. Endpoint, region and credentials come from the usual AWS environment variables. A write
appears whole or not at all; ``create`` is the conditional write that two processes race for. All of them raise
UserError for a bucket or credentials that are not there and StageError for a store that cannot be reached.
"""

import glob
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow.fs

from ray_asd.errors import UserError, unknown

READ_AHEAD = 1 << 18  # bytes that a remote file opened for reading fetches beyond what was asked for


@dataclass(frozen=True, slots=True)
class Entry:
    """One file below a listed place: POSIX path relative to it, size in bytes, and etag or modification time."""

    path: str
    size: int
    version: str


def is_remote(uri: str) -> bool:
    """Whether ``uri`` is an object's, not a local path."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """``uri`` without a trailing slash; a local path made absolute, since workers have another working directory.

    Raises:
        UserError: the scheme is neither a local path nor ``s3://``.
    """
    scheme, separator, _ = uri.partition("://")
    if separator and scheme != "s3":
        raise unknown("scheme", f"{scheme}://", ["s3://bucket/key", "a local path"])
    if not uri or uri.rstrip("/") == "s3:":
        raise UserError(f"{uri!r} names no place; allowed: s3://bucket/key or a local path")
    return uri.rstrip("/") if separator else os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *parts: str) -> str:
    """``uri`` and the parts below it."""
    return "/".join([uri.rstrip("/"), *parts])


def name(uri: str) -> str:
    """Last part of the path."""
    return uri.rstrip("/").rpartition("/")[2]


def parent(uri: str) -> str:
    """All but the last part of the path."""
    return uri.rstrip("/").rpartition("/")[0]


@lru_cache
def _remote(process: int) -> fsspec.AbstractFileSystem:
    del process  # a client does not survive a fork: the key gives each process its own
    from ray_asd.store import s3

    return s3.client()


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system that serves ``uri``, and the path to ask it for."""
    if is_remote(uri):
        return _remote(os.getpid()), uri.removeprefix("s3://")
    return fsspec.filesystem("file"), uri


def arrow(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """As ``filesystem``, for libraries that take a pyarrow file system (Ray Train, Parquet)."""
    if is_remote(uri):
        client, path = filesystem(uri)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(client)), path
    return pyarrow.fs.LocalFileSystem(), uri


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    client, path = filesystem(uri)
    return bool(client.exists(path))


def is_folder(uri: str) -> bool:
    """Whether a folder is there; on S3, whether objects lie below ``uri``."""
    client, path = filesystem(uri)
    return bool(client.isdir(path))


def read(uri: str) -> bytes:
    """The whole content.

    Raises:
        FileNotFoundError: there is nothing at ``uri``.
    """
    client, path = filesystem(uri)
    return bytes(client.cat_file(path))


def open_read(uri: str) -> IO[bytes]:
    """The file at ``uri`` to seek and read in, without fetching the whole of it; close it.

    Raises:
        FileNotFoundError: there is nothing at ``uri``.
    """
    client, path = filesystem(uri)
    options = {"block_size": READ_AHEAD} if is_remote(uri) else {}
    return cast(IO[bytes], client.open(path, "rb", **options))


def write(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri``, over what may be there; a reader sees the old or the new content, never a part."""
    client, path = filesystem(uri)
    if is_remote(uri):
        client.pipe_file(path, data)
    else:
        os.replace(_write_beside(path, data), path)


def create(uri: str, data: bytes) -> bool:
    """Put ``data`` at ``uri`` if nothing is there yet. True when what is there now is ours.

    ``data`` must hold something unique to the caller: a conditional write whose answer was lost is repeated and then
    refused because of itself, so on a refusal the content is read back and compared.
    """
    client, path = filesystem(uri)
    try:
        if is_remote(uri):
            client.pipe_file(path, data, mode="create")
        else:
            draft = _write_beside(path, data)
            try:
                os.link(draft, path)
            finally:
                os.unlink(draft)
    except FileExistsError:
        return read(uri) == data
    return True


def _write_beside(path: str, data: bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = _draft(path)
    with open(draft, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _draft(path: str) -> str:
    folder, last = os.path.split(path)
    return os.path.join(folder, f".{last}.{uuid.uuid4().hex}")


def upload(source: Path, uri: str) -> None:
    """Copy one local file to ``uri`` without holding it in memory."""
    client, path = filesystem(uri)
    if is_remote(uri):
        client.put_file(str(source), path)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = _draft(path)
        client.cp_file(str(source), draft)
        os.replace(draft, path)


def listing(uri: str) -> Iterator[Entry]:
    """All files below ``uri`` in order of path; hidden files and folders (leading dot) are left out."""
    client, path = filesystem(uri)
    root = client._strip_protocol(path)
    for found, info in sorted(client.find(path, detail=True).items()):
        relative = found.removeprefix(root).lstrip("/")
        if not relative or _is_folder_object(found) or relative.startswith(".") or "/." in relative:
            continue
        yield Entry(relative, int(info["size"]), _version(uri, info))


def stat(uri: str) -> Entry | None:
    """The file at ``uri``, its path being ``uri`` itself; None where there is no file."""
    client, path = filesystem(uri)
    try:
        info = client.info(path)
    except FileNotFoundError:
        return None
    return Entry(uri, int(info["size"]), _version(uri, info)) if info["type"] == "file" else None


def _version(uri: str, info: dict[str, Any]) -> str:
    return str(info["ETag"]).strip('"') if is_remote(uri) else str(info["mtime"])


def folders(uri: str) -> list[str]:
    """Names of the folders directly below ``uri`` in order, hidden ones left out; none when it does not exist."""
    return _children(uri, "directory")


def files(uri: str) -> list[str]:
    """Names of the files directly below ``uri`` in order, hidden ones left out; none when it does not exist."""
    return _children(uri, "file")


def _children(uri: str, kind: str) -> list[str]:
    client, path = filesystem(uri)
    try:
        entries = client.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [entry["name"] for entry in entries if entry["type"] == kind and not _is_folder_object(entry["name"])]
    names = sorted(name(entry) for entry in found)
    return [child for child in names if not child.startswith(".")]


def _is_folder_object(path: str) -> bool:
    return path.endswith("/")  # empty objects by which some tools stand for a folder


def last_write(uri: str) -> float:
    """When something below ``uri`` was last written, in seconds since the epoch; 0 for an empty or missing folder."""
    client, path = filesystem(uri)
    times = [
        info["LastModified"].timestamp() if is_remote(uri) else info["mtime"]
        for info in client.find(path, detail=True).values()
    ]
    return max(times, default=0.0)


def remove(uri: str) -> None:
    """Delete the file or folder at ``uri``; nothing happens when it is not there.

    Raises:
        UserError: ``uri`` is a whole bucket.
    """
    client, path = filesystem(uri)
    if not is_remote(uri):
        if client.exists(path):
            client.rm(path, recursive=True)
        return
    if "/" not in path.strip("/"):
        raise UserError(f"{uri}: a whole bucket is never removed; allowed: s3://bucket/key")
    with suppress(FileNotFoundError):
        client.rm(glob.escape(path), recursive=True)


def sha256(uri: str) -> str:
    """Hex digest of the content, read in pieces."""
    client, path = filesystem(uri)
    with client.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
