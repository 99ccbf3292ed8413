"""What lies in a place that others fill: nothing there stops the rest, and what this program wrote is no part of it."""

import os
from collections.abc import Iterator
from stat import S_IFMT

from ray_asd.errors import UserError
from ray_asd.store import local
from ray_asd.store.conditional import PROBE
from ray_asd.store.uri import Entry, exists, is_hidden, is_remote, join, remote_listing, write

_TAGS = (PROBE, ".ray-asd-outputs")  # by which folders of outputs are known: roots have the first one anyway


def survey(uri: str) -> Iterator[Entry]:
    """As ``listing``, of a place that others fill: nothing in it stops the rest, and no outputs below it are listed.

    What cannot be read (a FIFO, a folder that may not be listed) comes with its ``fault``. Links to folders are
    followed, unless what they lead to is listed anyway.

    Raises:
        UserError: the folder itself may not be listed.
    """
    if not is_remote(uri):
        yield from _walk(uri)
        return
    outputs = None
    for path, size, version in remote_listing(uri):
        if outputs and path.startswith(outputs):
            continue
        folder, _, last = path.rpartition("/")
        if last in _TAGS and folder:
            outputs = f"{folder}/"  # what is in it comes after its tag, in order of the keys
        elif not is_hidden(path):
            yield Entry(path, size, version)


def tag_outputs(uri: str) -> None:
    """Make the folder ``uri`` known as one of outputs, which no ``survey`` of a place above it lists."""
    write(join(uri, _TAGS[-1]), b"Outputs of ray-asd: no recordings.\n")


def holds_outputs(uri: str) -> bool:
    """Whether the folder ``uri`` itself is one that outputs were written to."""
    return any(exists(join(uri, tag)) for tag in _TAGS)


def _walk(path: str, below: str = "", listed: list[str] | None = None) -> Iterator[Entry]:
    """``survey`` on disk; ``listed`` are the folders whose files are listed anyway, links being resolved."""
    listed = [os.path.realpath(path)] if listed is None else listed
    try:
        scanned = local.scanned(os.path.join(path, below))
    except UserError as error:
        if not below:
            raise
        yield Entry(below.rstrip("/"), 0, "", str(error.__cause__))
        return
    if below and any(name in _TAGS for name, *_ in scanned):
        return
    for name, kind, size, version in sorted(scanned, key=local.place_in_order):
        if is_hidden(name):
            continue
        if kind == "directory":
            yield from _walk(path, f"{below}{name}/", listed)
            continue
        place = os.path.join(path, below, name)
        target = os.path.realpath(place) if kind == "other" and local.is_folder(place) else None
        if target is None:
            yield Entry(f"{below}{name}", size, version, _no_file(place) if kind == "other" else None)
        elif any(_overlap(target, known) for known in listed):
            yield Entry(f"{below}{name}", 0, version, f"a link to {target}, which is listed already, or some of it")
        else:
            listed.append(target)
            yield from _walk(path, f"{below}{name}/", listed)


def _overlap(one: str, other: str) -> bool:
    """Whether one of two folders is the other, or lies in it."""
    return os.path.commonpath([one, other]) in (one, other)


def _no_file(path: str) -> str | None:
    """What kind of file, which holds no content, a path or link leads to; None where it leads to a file, or nowhere."""
    status = local.status_of(path)
    kind = status and local.OTHERS.get(S_IFMT(status.st_mode))
    return f"{kind}, not a file" if kind else None
