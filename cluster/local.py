"""A Ray cluster of three nodes on this machine, to try on it what later runs on many: a head without CPUs, two workers.

    .venv/bin/python cluster/local.py

Prints what to set in another terminal, and ends the cluster with Ctrl-C or SIGTERM. Each node is a process of its own;
the token is made anew, readable by you alone. The dashboard is on loopback; Ray's other ports are open on all
interfaces, and ask for the token.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import requests

HOST = "127.0.0.1"
RAY = str(Path(sys.executable).with_name("ray"))
LONGEST_START_SECONDS = 120
LONGEST_END_SECONDS = 5
STARTS = 3  # of a node which Ray gives up after 30 s, as it does on a busy machine
GIVEN_UP = "timed out during startup"
# Workers of three nodes would draw the same ports from Ray's fixed range; 0 lets the system choose.
ANY_PORT = {"min-worker-port": "0", "max-worker-port": "0"}


@dataclass(frozen=True)
class Node:
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    metrics: str  # where Prometheus reads them


@click.command()
@click.option("--workers", type=click.IntRange(0, 16), default=2, show_default=True, help="Nodes beside the head.")
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Of each worker.")
@click.option("--port", type=click.IntRange(1024, 65535), default=26379, show_default=True, help="Of the head.")
@click.option("--dashboard-port", type=click.IntRange(1024, 65535), default=28265, show_default=True, help="For jobs.")
def local(workers: int, cpus: int, port: int, dashboard_port: int) -> None:
    """Run a Ray cluster on this machine until Ctrl-C."""
    for wanted in (port, dashboard_port):
        if not _is_free(wanted):
            raise click.ClickException(f"port {wanted} is taken: is a cluster running already? else choose another one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets below it allow 107 characters
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = _environment(folder)
        dashboard = f"http://{HOST}:{dashboard_port}"
        head = {"port": str(port), "dashboard-host": HOST, "dashboard-port": str(dashboard_port), "num-cpus": "0"}
        head |= {"ray-client-server-port": str(_free_port())}
        nodes: list[Node] = []
        stack.callback(_end, nodes)
        token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()

        def are_up() -> bool:
            return _alive(dashboard, token) == len(nodes)

        _add(nodes, partial(_node, "head", ["--head"], head, folder, environment), are_up)
        worker = {"address": f"{HOST}:{port}", "num-cpus": str(cpus)}
        for number in range(1, workers + 1):  # one after another, which is quicker for each
            _add(nodes, partial(_node, f"worker-{number}", [], worker, folder, environment), are_up)
        click.echo(f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={environment['RAY_AUTH_TOKEN_PATH']}")
        click.echo(f"export RAY_API_SERVER_ADDRESS={dashboard}  # for jobs/submit.py and `ray job`")
        click.echo(f"# Prometheus reads {' '.join(f'http://{node.metrics}/metrics' for node in nodes)}")
        _wait(nodes, lambda: False, seconds=float("inf"))


def _environment(folder: Path) -> dict[str, str]:
    """Of all nodes: a token that others cannot read."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    own["PYTHONUNBUFFERED"] = "1"  # then a log ends with why its node has ended
    return clean | own


def _node(
    name: str, arguments: list[str], options: Mapping[str, str], folder: Path, environment: Mapping[str, str]
) -> Node:
    """A node that has begun to start."""
    # A folder of its own: in a shared one a node removes the working directory that another has unpacked.
    metrics = _free_port()
    own = {"dashboard-agent-listen-port": str(_free_port()), "temp-dir": str(folder / name)}
    own |= {"metrics-export-port": str(metrics)}
    options = {"node-ip-address": HOST, **ANY_PORT, **own, **options}
    command = [RAY, "start", "--block", "--disable-usage-stats", *arguments]
    command += [f"--{option}={value}" for option, value in options.items()]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Node(name, process, log, f"{HOST}:{metrics}")


def _end(nodes: list[Node]) -> None:
    """All of them, each by its own processes alone: ``ray stop`` would end every Ray of this machine."""
    for node in nodes:
        node.process.terminate()
    deadline = time.monotonic() + LONGEST_END_SECONDS
    for node in nodes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):  # agents outlive a raylet that was killed by a minute
            os.killpg(node.process.pid, signal.SIGKILL)
        node.process.wait()


def _wait(nodes: list[Node], condition: Callable[[], bool], seconds: float = LONGEST_START_SECONDS) -> None:
    """Until it holds.

    Raises:
        ClickException: a node has ended, or the time is up.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        for node in nodes:
            if node.process.poll() is not None:
                last = node.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise click.ClickException(f"{node.name} has ended with {node.process.returncode}: {''.join(last)}")
        if time.monotonic() > deadline:
            raise click.ClickException(f"the nodes have not come up within {seconds:g} s")
        time.sleep(0.2)


def _add(nodes: list[Node], start: Callable[[], Node], are_up: Callable[[], bool]) -> None:
    """Add a node, and wait until all are up.

    Raises:
        ClickException: one of them has ended, or the time is up.
    """
    for left in reversed(range(STARTS)):
        nodes.append(start())
        try:
            _wait(nodes, are_up)
            break
        except click.ClickException:
            if not left or not _was_given_up(nodes[-1]):
                raise
            _end([nodes.pop()])


def _was_given_up(node: Node) -> bool:
    return node.process.poll() is not None and GIVEN_UP in node.log.read_text(errors="replace")


def _alive(dashboard: str, token: str) -> int:
    """How many nodes the dashboard knows to be up; 0 while it does not answer."""
    try:
        url, headers = f"{dashboard}/api/v0/nodes", {"Authorization": f"Bearer {token}"}
        answer = requests.get(url, headers=headers, timeout=10)
        answer.raise_for_status()
        return sum(node["state"] == "ALIVE" for node in answer.json()["data"]["result"]["result"])
    except requests.RequestException:
        return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        found: int = probe.getsockname()[1]
    return found


if __name__ == "__main__":
    local()
