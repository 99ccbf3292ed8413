"""The processes of these tests: those they started, to be killed or waited for; and what two of their own share."""

import fcntl
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, five minutes at most."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def below_this_one(title: bytes) -> list[int]:
    """Ids of the processes below this one whose command line holds ``title``, as Ray names its workers."""
    return sorted(below(os.getpid(), title))


def below(parent: int, title: bytes) -> dict[int, bytes]:
    """Ids and command lines of the processes below another one whose command line holds ``title``."""
    parents, found = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            line = (process / "cmdline").read_bytes()
            if title in line:
                found[int(process.name)] = line
        except OSError:  # it ended meanwhile
            continue

    def is_below(process: int) -> bool:
        return process == parent or (process in parents and is_below(parents[process]))

    return {process: line for process, line in found.items() if is_below(process)}


def listening(process: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process takes TCP connections."""
    open_ports = {}
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                address, _, port = local.partition(":")
                words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
                open_ports[inode] = (str(ipaddress.ip_address(b"".join(words))), int(port, 16))
    found = set()
    with suppress(OSError):  # it ended meanwhile
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                inode = os.readlink(entry).removeprefix("socket:[").rstrip("]")
                if inode in open_ports:
                    found.add(open_ports[inode])
    return found


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended may stand in /proc until somebody asks how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(processes: Iterable[int]) -> None:
    """All of them at once; some may have ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ephemeral ports, which lie above the range that Ray's workers use."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def is_open(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex((host, port)) == 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The file's lock for the block, among the processes of a test session."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile would hold it on
