"""Ray clusters of several nodes on this machine, in a process of their own: nodes that go, and nodes that come.

Run as a program it is that process: it takes what the cluster is made of as JSON, answers each line with one, and ends
the cluster with its standard input.
"""

import ctypes
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import processes

_PR_SET_CHILD_SUBREAPER = 36  # sys/prctl.h
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # then all take 127.0.0.1 for their own address


class Cluster:
    """A running cluster, as who uses it sees it; node 0 is the head, which has no CPUs."""

    def __init__(self, program: "subprocess.Popen[str]", environment: Mapping[str, str]) -> None:
        self._program = program
        started = json.loads(self._answer())
        self.address: str = started["address"]
        self._raylets: list[int] = started["raylets"]
        self.environment = {**environment, "RAY_ADDRESS": self.address}

    def at_work(self, node: int) -> dict[str, set[str]]:
        """The titles of the processes of a node that do some work just now, by the job that they do it for."""
        found: dict[str, set[str]] = {}
        for pid, title in processes.below(self._raylets[node], b"ray::").items():
            if b"ray::IDLE" not in title:
                with suppress(OSError):  # it ended meanwhile
                    log = Path(os.readlink(f"/proc/{pid}/fd/1")).stem.split("-")
                    if log[0] == "worker":  # and no agent of the node itself
                        found.setdefault(log[2], set()).add(title.replace(b"\0", b" ").decode().strip())
        return found

    def nodes(self) -> int:
        """How many raylets there are, the head's among them."""
        return len(_raylets(self._program.pid))

    def remove(self, node: int) -> None:
        """Kill all processes of a node, none of which can say goodbye."""
        assert self._program.stdin
        self._program.stdin.write(f"{node}\n")
        self._program.stdin.flush()
        assert self._answer() == f"removed {node}"

    def kill(self) -> None:
        """The head and all nodes, without warning."""
        _kill_all(self._program.pid)
        self._program.kill()

    def _answer(self) -> str:
        assert self._program.stdout
        return self._program.stdout.readline().strip()


@contextmanager
def cluster(
    folder: Path,
    nodes: Sequence[Mapping[str, Any]] = (),
    most: int = 0,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Cluster]:
    """A head without CPUs and ``nodes``; to which an autoscaler adds up to ``most`` nodes of one CPU."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    environment = own | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)} | _LOOPBACK | dict(variables)
    command = [sys.executable, __file__, json.dumps({"nodes": nodes, "most": most, "folder": str(folder)})]
    with (
        (folder / "cluster.log").open("w") as log,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as program,
    ):
        try:
            yield Cluster(program, environment)
        finally:
            assert program.stdin
            program.stdin.close()


def _raylets(program: int) -> list[int]:
    found = processes.below(program, b"raylet/raylet")
    return [pid for pid, line in found.items() if line.split(b"\0")[0].endswith(b"/raylet")]


def _autoscaler(most: int, address: str) -> dict[str, Any]:
    """The configuration of an autoscaler whose nodes are raylets on this machine."""
    node_types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "group": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": most},
    }
    provider = {"type": "fake_multinode", "gcs_address": address, "launch_multiple": True, "use_node_id_as_ip": True}
    provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
    commands = {f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup", "worker_setup")}
    return {
        "cluster_name": "tests",
        "max_workers": most,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 10,
        "provider": provider,
        "available_node_types": node_types,
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "head_node": {},
        "worker_nodes": {},
        **commands,
    }


def _kill_all(program: int) -> None:
    """Everything below the program, which adopts what those that die leave, such as the nodes of an autoscaler."""
    while begun := [pid for pid in processes.below(program, b"") if pid != program and processes.is_alive(pid)]:
        processes.kill(begun)
        time.sleep(0.05)


def main() -> None:
    from ray.cluster_utils import Cluster as Nodes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    asked = json.loads(sys.argv[1])
    (port,) = processes.free_ports(1)
    address = f"127.0.0.1:{port}"
    head = {"num_cpus": 0, "include_dashboard": False, "gcs_server_port": port}
    if asked["most"]:
        configuration = Path(asked["folder"]) / "autoscaler.json"
        configuration.write_text(json.dumps(_autoscaler(asked["most"], address)))
        os.environ |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        head["autoscaling_config"] = str(configuration)
    started = Nodes(initialize_head=True, head_node_args=head)
    nodes = [started.head_node, *(started.add_node(**node) for node in asked["nodes"])]
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": started.address, "raylets": pids}), flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        started.remove_node(nodes[int(line)], allow_graceful=False)
        print(f"removed {line}", end="", flush=True)  # noqa: T201
    started.shutdown()
    _kill_all(os.getpid())  # also what came later, of which the cluster knows nothing


if __name__ == "__main__":
    main()
