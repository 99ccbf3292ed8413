"""What Kustomize makes of the manifests, and what their schemas say of it."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
OVERLAYS = sorted(path.name for path in (CLUSTER / "kubernetes/overlays").iterdir())
KUBERNETES = "1.37"
Object = dict[str, Any]

_KUBERAY = json.loads((Path(__file__).parent / "kuberay.json").read_text())


def program(name: str) -> str:
    """One that pip installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


@cache
def _text(overlay: str) -> str:
    command = [program("kubectl"), "kustomize", str(CLUSTER / "kubernetes/overlays" / overlay)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def built(overlay: str) -> list[Object]:
    """The objects that ``kubectl apply -k`` would send, each time new ones."""
    return [found for found in yaml.safe_load_all(_text(overlay)) if found]


def check(found: Object) -> None:
    """Raises ``jsonschema.ValidationError`` where it is not as its published schema says, unknown fields included."""
    if not found["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
        return
    assert found["apiVersion"] == "ray.io/v1"
    schema = {"$ref": f"#/$defs/{found['kind']}", "$defs": _KUBERAY["$defs"]}
    jsonschema.validate(found["spec"], schema)
    for template in pod_templates(found):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "of-ray"}, "template": template},
            KUBERNETES,
            strict=True,
        )


def pod_templates(node: Any) -> Iterator[Object]:
    """All of an object, however deep; those of a RayCluster carry the label that the operator adds."""
    if isinstance(node, list):
        for value in node:
            yield from pod_templates(value)
    if not isinstance(node, dict):
        return
    for value in node.values():
        if isinstance(value, dict) and "containers" in value.get("spec", {}):
            template = copy.deepcopy(value)
            if "rayStartParams" in node:
                kind = "worker" if "groupName" in node else "head"
                template["metadata"]["labels"]["ray.io/node-type"] = kind
            yield template
        else:
            yield from pod_templates(value)


def ray_clusters(objects: list[Object]) -> Iterator[Object]:
    """The specs of RayClusters, those within RayJobs and RayCronJobs too."""
    for found in objects:
        if found["kind"] == "RayCluster":
            yield found["spec"]
    for job in ray_jobs(objects):
        yield job["rayClusterSpec"]


def ray_jobs(objects: list[Object]) -> Iterator[Object]:
    """The specs of RayJobs, those within RayCronJobs too."""
    for found in objects:
        if found["kind"] == "RayJob":
            yield found["spec"]
        if found["kind"] == "RayCronJob":
            yield found["spec"]["jobTemplate"]


def selects(selector: Object, labels: Object) -> bool:
    """Whether a selector made of ``matchLabels`` alone means a pod of these labels."""
    assert not selector.keys() - {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()
