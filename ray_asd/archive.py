"""What lies below a root: list it, trace where it came from, remove what nothing needs. Reads markers only."""

import time
from dataclasses import dataclass

from ray_asd import build, storage
from ray_asd.errors import UserError

_NOT_STAGES = {"status"}


@dataclass(frozen=True)
class Leftover:
    """A place below the root that no kept marker lists, and why it can go."""

    uri: str
    why: str


def outputs(root: str) -> list[build.Output]:
    """All finished stages below ``root``, oldest first."""
    found = [build.find(folder) for folder in _stage_folders(root)]
    return sorted((output for output in found if output), key=lambda output: output.marker.started_at)


def lineage(output: build.Output) -> list[build.Output]:
    """``output`` and every finished stage that it was made from, nearest first, each once."""
    found = {output.uri: output}
    queue = [output]
    while queue:
        for source in queue.pop(0).marker.inputs.values():
            parent = build.find(source.uri) if source.uri not in found else None
            if parent:
                found[parent.uri] = parent
                queue.append(parent)
    return list(found.values())


def leftovers(root: str, keep: list[str], older_than: float) -> list[Leftover]:
    """What can be removed below ``root``.

    Args:
        keep: URIs of outputs to keep with all they were made from; none: every finished stage is kept.
        older_than: seconds since the last write; younger attempts may belong to a running job.

    Raises:
        UserError: a URI in ``keep`` is no finished stage below ``root``.
    """
    finished = outputs(root)
    needed = {output.uri for output in finished}
    if keep:
        known = {output.uri: output for output in finished}
        wanted = [storage.absolute(uri) for uri in keep]
        for uri in wanted:
            if uri not in known:
                raise UserError(f"--keep {uri}: no finished stage below {root}; allowed: a URI that `ls` prints")
        needed = {parent.uri for uri in wanted for parent in lineage(known[uri])}
    found = [Leftover(output.uri, "not needed by what is kept") for output in finished if output.uri not in needed]
    oldest_alive = time.time() - older_than
    for folder in _stage_folders(root):
        output = build.find(folder)
        if output and output.uri not in needed:
            continue
        listed = output.marker.attempt if output else None
        for child in storage.folders(folder):
            place = storage.join(folder, child)
            if child != listed and storage.last_write(place) < oldest_alive:
                found.append(Leftover(place, "left by a run that ended before its commit"))
    return found


def _stage_folders(root: str) -> list[str]:
    stages = [name for name in storage.folders(root) if name not in _NOT_STAGES]
    return [storage.join(root, stage, name) for stage in stages for name in storage.folders(storage.join(root, stage))]
