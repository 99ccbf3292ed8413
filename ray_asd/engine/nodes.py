"""The cluster's nodes, as far as work has to know them: what each has, and whether more of them can come."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import ray
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental import internal_kv

GIB = 1 << 30
ROUNDING = 1e-6  # of fractional CPUs and GPUs
_STATUS = "__autoscaling_status"
_UNMANAGED = "node_"  # how the autoscaler calls the type of a node that it only looks at


@dataclass(frozen=True)
class Node:
    """What one node has in all, by Ray's names, and the labels it carries."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def room(self, needs: Mapping[str, float], labels: Mapping[str, str]) -> float:
        """How many workers it holds that take so much and select their node by these labels."""
        if not all(_selects(wanted, self.labels.get(name)) for name, wanted in labels.items()):
            return 0
        return room(self.resources, needs)


def room(free: Mapping[str, float], needs: Mapping[str, float]) -> float:
    """How often ``needs`` go into ``free``; infinity where nothing is needed."""
    return min((int(free.get(name, 0) / each + ROUNDING) for name, each in needs.items()), default=float("inf"))


def alive() -> list[Node]:
    """The nodes that are there now."""
    return [Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def here(cpus: int | None = None) -> Node:
    """What the only node of a Ray that is started on this machine will have."""
    found = ResourceAndLabelSpec(num_cpus=cpus).resolve(is_head=True, node_ip_address="127.0.0.1")
    return Node(found.to_resource_dict(), found.labels or {})


def grow() -> bool:
    """Whether an autoscaler brings nodes for work that waits; what it could bring it tells nobody."""
    if is_autoscaler_v2(fetch_from_server=True):
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        types = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    else:
        report = json.loads(internal_kv._internal_kv_get(_STATUS) or b"{}").get("autoscaler_report") or {}
        types = {*(report.get("node_type_mapping") or {}).values(), *(report.get("active_nodes") or {})}
    return any(not name.startswith(_UNMANAGED) for name in types)


def described(nodes: list[Node], names: list[str]) -> str:
    """The sizes of ``nodes`` in these resources, e.g. ``2 nodes of 4 CPU, 0 GPU and 1 node of 8 CPU, 1 GPU``."""
    sizes = Counter(", ".join(amount(name, node.resources.get(name, 0)) for name in names) for node in nodes)
    return " and ".join(f"{count} node{'s' if count > 1 else ''} of {size}" for size, count in sorted(sizes.items()))


def amount(resource: str, value: float) -> str:
    """``1.5 CPU``, ``8.0 GiB memory``."""
    return f"{value / GIB:.1f} GiB memory" if resource == "memory" else f"{value:g} {resource}"


def _selects(wanted: str, value: str | None) -> bool:
    """Ray's label selectors: a value, ``in(a,b)``, and either with ``!`` before it."""
    if wanted.startswith("!"):
        return not _selects(wanted[1:], value)
    values = wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    return value is not None and value in (word.strip() for word in values)
