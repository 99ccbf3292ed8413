"""What processes of this job wrote before they were lost, from the logs of the nodes that are still there.

Ray tells no more of such a process than that it is gone, and its logs go with the cluster.
"""

import os
import time
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_LATELY_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0  # with nodes that may be going too
_LINES = 20
_OF_RAY = (":job_id:", ":task_name:", ":actor_name:")  # lines between which it says whose output follows


def last_words() -> str:
    """The last lines on stderr of each process that was lost lately and wrote some; empty outside Ray."""
    if not ray.is_initialized():
        return ""
    job = ray.get_runtime_context().get_job_id()
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [_of_node.options(scheduling_strategy=_on(node)).remote(job) for node in alive]
    heard, late = ray.wait(asked, num_returns=len(asked), timeout=_PATIENCE_SECONDS)
    for task in late:
        ray.cancel(task, force=True)
    found: list[str] = []
    for task in heard:
        try:
            found += ray.get(task)
        except RayError:  # this node is gone as well
            continue
    return "\n".join(found)


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _of_node(job: str) -> list[str]:
    """One text for each process of ``job`` that this node has lost."""
    own = Path(os.readlink("/proc/self/fd/2"))  # .../worker-<id>-<job>-<pid>.err
    return [
        f"{os.uname().nodename}, {path.name}:\n{text}"
        for path in own.parent.glob(f"worker-*-{job}-*.err")
        if _is_lost(path) and (text := _tail(path))
    ]


def _is_lost(log: Path) -> bool:
    is_new = log.stat().st_mtime > time.time() - _LATELY_SECONDS
    return is_new and not Path("/proc", log.stem.rpartition("-")[2]).exists()


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(_OF_RAY)]
    return "\n".join(lines[-_LINES:])
