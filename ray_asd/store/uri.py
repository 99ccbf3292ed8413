"""The one door to files and objects: every URI is a local path or ``s3://bucket/key``.

s3fs is the only client. Endpoint, region and credentials come from the usual AWS environment variables. A write
appears whole or not at all; ``create`` is the conditional write that two processes race for. All of them raise
UserError for a bucket or credentials that are wrong and Retryable where storage fails or cannot be reached, after
having tried again; what remains of OSError says something of the very file that was asked for.
"""

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow.fs

from ray_asd.errors import UserError, unknown
from ray_asd.store import local
from ray_asd.store.environment import watched

READ_AHEAD = 1 << 18  # bytes that a remote file opened for reading fetches beyond what was asked for


@dataclass(frozen=True, slots=True)
class Entry:
    """One file below a listed place: POSIX path relative to it, size in bytes, and etag or modification time.

    ``fault``: why it cannot be read (``survey`` only).
    """

    path: str
    size: int
    version: str
    fault: str | None = None


def is_remote(uri: str) -> bool:
    """Whether ``uri`` is an object's, not a local path."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """``uri`` without a trailing slash; a local path made absolute, since workers have another working directory.

    Raises:
        UserError: neither a local path nor ``s3://``, a bucket that cannot be, or relative to a folder that is gone.
    """
    scheme, separator, _ = uri.partition("://")
    if separator and scheme != "s3":
        raise unknown("scheme", f"{scheme}://", ["s3://bucket/key", "a local path"])
    if not uri or uri.rstrip("/") == "s3:":
        raise UserError(f"{uri!r} names no place; allowed: s3://bucket/key or a local path")
    if separator:
        bucket = uri.removeprefix("s3://").partition("/")[0]
        if ":" in bucket and not bucket.startswith("arn:"):  # it may hold a secret, so it is not repeated
            raise UserError("an S3 URI has a colon in its bucket's name; allowed: s3://BUCKET/KEY without credentials")
        return uri.rstrip("/")
    try:
        return os.path.abspath(os.path.expanduser(uri))
    except FileNotFoundError as error:
        raise UserError(f"{uri}: the working directory is gone; allowed: an absolute path") from error


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
    if not is_remote(uri):
        return local.exists(uri)
    client, path = filesystem(uri)
    return bool(client.exists(path))


def is_folder(uri: str) -> bool:
    """Whether a folder is there; on S3, whether objects lie below ``uri``."""
    if not is_remote(uri):
        return local.is_folder(uri)
    client, path = filesystem(uri)
    return bool(client.isdir(path))


def read(uri: str) -> bytes:
    """The whole content.

    Raises:
        FileNotFoundError: there is nothing at ``uri``.
    """
    if not is_remote(uri):
        return local.read(uri)
    client, path = filesystem(uri)
    return bytes(client.cat_file(path))


def open_read(uri: str) -> IO[bytes]:
    """The file at ``uri`` to seek and read in, without fetching the whole of it; close it.

    Raises:
        FileNotFoundError: there is nothing at ``uri``.
    """
    if not is_remote(uri):
        return local.open_read(uri)
    client, path = filesystem(uri)
    return cast(IO[bytes], client.open(path, "rb", block_size=READ_AHEAD))


def write(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri``, over what may be there; a reader sees the old or the new content, never a part."""
    if not is_remote(uri):
        local.write(uri, data)
        return
    client, path = filesystem(uri)
    client.pipe_file(path, data)


def create(uri: str, data: bytes) -> bool:
    """Put ``data`` at ``uri`` if nothing is there yet. True when what is there now is ours.

    ``data`` must hold something unique to the caller: a conditional write whose answer was lost is repeated and then
    refused because of itself, so on a refusal the content is read back and compared.
    """
    try:
        if is_remote(uri):
            client, path = filesystem(uri)
            client.pipe_file(path, data, mode="create")
        else:
            local.create(uri, data)
    except FileExistsError:
        return read(uri) == data
    return True


def upload(source: Path, uri: str) -> None:
    """Copy one local file to ``uri`` without holding it in memory."""
    if not is_remote(uri):
        local.copy(uri, source)
        return
    client, path = filesystem(uri)
    with watched(str(source)):
        client.put_file(str(source), path)


def listing(uri: str) -> Iterator[Entry]:
    """All files below ``uri`` in order of path, as they are found; hidden ones (leading dot) are left out.

    Raises:
        UserError: a folder may not be listed.
    """
    for path, size, version in remote_listing(uri) if is_remote(uri) else local.listing(uri):
        if not is_hidden(path):
            yield Entry(path, size, version)


def is_hidden(path: str) -> bool:
    """Whether a part of that path below a listed place has a leading dot."""
    return path.startswith(".") or "/." in path


def remote_listing(uri: str) -> Iterator[tuple[str, int, str]]:
    """As ``listing`` of a place in an object store, hidden files too."""
    _, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    for found in _objects(uri):
        path = found["Key"].removeprefix(prefix and f"{prefix}/")
        if path and not _is_folder_object(path):
            yield path, int(found["Size"]), _version(found)


def _objects(uri: str) -> Iterator[dict[str, Any]]:
    """What S3 says of each object below ``uri``, which it lists in order of their keys."""
    client, path = filesystem(uri)
    bucket, _, prefix = path.rstrip("/").partition("/")
    asked = {"Bucket": bucket, "Prefix": prefix and f"{prefix}/"}
    while True:
        page = client.call_s3("list_objects_v2", **asked)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def stat(uri: str) -> Entry | None:
    """The file at ``uri``, its path being ``uri`` itself; None where there is no file."""
    if not is_remote(uri):
        found = local.stat(uri)
        return Entry(*found) if found else None
    client, path = filesystem(uri)
    try:
        info = client.info(path)
    except FileNotFoundError:
        return None
    return Entry(uri, int(info["size"]), _version(info)) if info["type"] == "file" else None


def _version(info: dict[str, Any]) -> str:
    return str(info["ETag"]).strip('"')


def folders(uri: str) -> list[str]:
    """Names of the folders directly below ``uri`` in order, hidden ones left out; none when it does not exist."""
    return _children(uri, "directory")


def files(uri: str) -> list[str]:
    """Names of the files directly below ``uri`` in order, hidden ones left out; none when it does not exist."""
    return _children(uri, "file")


def _children(uri: str, kind: str) -> list[str]:
    names = _remote_children(uri, kind) if is_remote(uri) else local.children(uri, kind)
    return [child for child in sorted(names) if not child.startswith(".")]


def _remote_children(uri: str, kind: str) -> list[str]:
    client, path = filesystem(uri)
    try:
        entries = client.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return [name(entry["name"]) for entry in entries if entry["type"] == kind and not _is_folder_object(entry["name"])]


def _is_folder_object(path: str) -> bool:
    return path.endswith("/")  # empty objects by which some tools stand for a folder


def last_write(uri: str) -> float:
    """When the file ``uri`` or something below it was last written, in seconds since the epoch; 0 where nothing is."""
    if not is_remote(uri):
        file = local.stat(uri)
        found = [file] if file else local.listing(uri)
        return max((float(time) for *_, version in found for time in version.split()), default=0.0)
    client, path = filesystem(uri)
    times = [info["LastModified"].timestamp() for info in client.find(path, detail=True).values()]
    return max(times, default=0.0)


def remove(uri: str) -> None:
    """Delete the file or folder at ``uri``; nothing happens when it is not there.

    Raises:
        UserError: ``uri`` is a whole bucket.
    """
    if not is_remote(uri):
        local.remove(uri)
        return
    client, path = filesystem(uri)
    if "/" not in path.strip("/"):
        raise UserError(f"{uri}: a whole bucket is never removed; allowed: s3://bucket/key")
    with suppress(FileNotFoundError):
        client.rm(glob.escape(path), recursive=True)


def sha256(uri: str) -> str:
    """Hex digest of the content, read in pieces."""
    if not is_remote(uri):
        return local.sha256(uri)
    client, path = filesystem(uri)
    with client.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
