"""The processes that these tests started, so that one of them can be killed."""

import os
from pathlib import Path


def below_this_one(title: bytes) -> list[int]:
    """Ids of the processes below this one whose command line holds ``title``, as Ray names its workers."""
    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if title in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue

    def is_ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_ours(parents[process]))

    return sorted(filter(is_ours, found))
