"""What lies below a root: list it, trace where it came from, remove what nothing needs. Reads markers only."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from ray_asd import build, store
from ray_asd.build.steps import Find
from ray_asd.errors import UserError

_STAGE_FOLDER = re.compile(r".+-[0-9a-f]{12}")  # anything else below a root is not ours to remove

_READERS = 16


@dataclass(frozen=True)
class Leftover:
    """A place below the root that no kept marker lists, and why it can go."""

    uri: str
    why: str


def outputs(root: str) -> list[build.Output]:
    """All finished stages below ``root``, oldest first."""
    found = [build.find(folder) for folder in _stage_folders(root)]
    return sorted((output for output in found if output), key=lambda output: output.marker.started_at)


def newest_first(stage: str, name: str) -> Iterator[build.Output]:
    """The finished stages called ``name`` below ``stage``, which is a folder of a root. Few are held at a time."""
    pattern = re.compile(rf"{re.escape(store.file_name(name))}-[0-9a-f]{{12}}")
    folders = [store.join(stage, folder) for folder in store.folders(stage) if pattern.fullmatch(folder)]
    with ThreadPoolExecutor(_READERS) as pool:
        started = list(pool.map(_started, folders))
    for _, folder in sorted(((at, folder) for at, folder in zip(started, folders, strict=True) if at), reverse=True):
        if (output := build.find(folder)) is not None:
            yield output


def _started(folder: str) -> datetime | None:
    output = build.find(folder)
    return output.marker.started_at if output else None


def find(uri: str) -> build.Output:
    """The finished stage at ``uri``, whichever it is.

    Raises:
        UserError: there is none.
    """
    output = build.find(store.absolute(uri))
    if output is None:
        raise UserError(f"{uri} holds no finished stage (no {build.MARKER}); allowed: a URI that `ls` prints")
    return output


def lineage(output: build.Output, find: Find = build.find) -> list[build.Output]:
    """``output`` and every finished stage that it was made from, nearest first, each once.

    ``find`` may be one that remembers its answers, for the lineages of many outputs.
    """
    found = {output.uri: output}
    queue = [output]
    while queue:
        for source in queue.pop(0).marker.inputs.values():
            parent = known(source.uri, find) if source.uri not in found else None
            if parent:
                found[parent.uri] = parent
                queue.append(parent)
    return list(found.values())


def known(uri: str, find: Find = build.find) -> build.Output | None:
    """The finished stage there, if it still is."""
    try:
        return find(uri)
    except UserError:  # recordings in a bucket that is gone or closed by now
        return None


def leftovers(root: str, keep: list[str], older_than: float) -> list[Leftover]:
    """What can be removed below ``root``.

    Args:
        keep: URIs of outputs to keep with all they were made from; none: every finished stage is kept.
        older_than: seconds since the last write below a place; younger ones may belong to a running job.

    Raises:
        UserError: a URI in ``keep`` is no finished stage below ``root``.
    """
    found = {folder: build.find(folder) for folder in _stage_folders(root)}
    needed = {uri for uri, output in found.items() if output}
    if keep:
        needed = {kept.uri for uri in keep for kept in lineage(_kept(uri, found, root))}
    places = []
    for folder, output in found.items():
        if output and folder not in needed:
            places.append(Leftover(folder, "not needed by what is kept"))
            continue
        listed = output.marker.attempt if output else None
        unlisted = [store.join(folder, child) for child in store.folders(folder) if child != listed]
        places += [Leftover(place, "left by a run that ended before its commit") for place in unlisted]
        if output:
            places += [Leftover(output.file_uri(path), "not listed by its marker") for path in _unlisted(output)]
    oldest_alive = time.time() - older_than
    return [place for place in places if store.last_write(place.uri) < oldest_alive]


def remove(leftover: Leftover) -> None:
    """Delete it, its marker first: one that is left standing on nothing would be taken for a finished stage."""
    store.remove(store.join(leftover.uri, build.MARKER))
    store.remove(leftover.uri)


def _unlisted(output: build.Output) -> list[str]:
    """What lies among the files of a finished stage without being one, by path; receipts as their folder."""
    listed = {file.path for file in output.marker.files}
    place = store.join(output.uri, output.marker.attempt)
    found = [entry.path for entry in store.listing(place) if entry.path not in listed]
    return list(dict.fromkeys(build.RECEIPTS if path.startswith(f"{build.RECEIPTS}/") else path for path in found))


def _kept(uri: str, found: dict[str, build.Output | None], root: str) -> build.Output:
    output = found.get(store.absolute(uri))
    if output is None:
        raise UserError(f"--keep {uri}: no finished stage below {root}; allowed: a URI that `ls` prints")
    return output


def _stage_folders(root: str) -> list[str]:
    return [
        store.join(root, stage, name)
        for stage in store.folders(root)
        for name in store.folders(store.join(root, stage))
        if _STAGE_FOLDER.fullmatch(name)
    ]
