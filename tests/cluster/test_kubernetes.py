"""The manifests are what their schemas say, what the security page promises, and what the recipes ask for."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest

from manifests import OVERLAYS, ROOT, Object, built, check, pod_templates, ray_clusters, ray_jobs, selects
from ray_asd import cli, config

RECIPES = sorted(path.stem for path in (ROOT / "ray_asd/recipes").glob("*.yaml"))
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def of(overlay: str, *kinds: str) -> list[Object]:
    return [found for found in built(overlay) if found["kind"] in kinds]


def entry_points() -> list[Any]:
    """Each command of a manifest; one whose job is not written yet is told apart."""
    found = []
    for overlay in OVERLAYS:
        for job in ray_jobs(built(overlay)):
            words = job["entrypoint"].split()
            missing = not (ROOT / "jobs" / Path(words[1]).name).exists()
            skip = [pytest.mark.skipif(missing, reason=f"{words[1]} is not written yet")]
            found.append(pytest.param(overlay, job["entrypoint"], id=overlay, marks=skip))
    return found


@each_overlay
def test_each_object_is_as_its_schema_says(overlay: str) -> None:
    objects = built(overlay)
    for found in objects:
        check(found)
    assert {"Namespace", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"} <= {x["kind"] for x in objects}
    assert {x["metadata"].get("namespace", "ray-asd") for x in objects} == {"ray-asd"}
    assert len(list(ray_clusters(objects))) == 1, "what is only there to be copied is not sent"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(activeDeadlineSecond=1),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(restart="Never"),
        lambda job: job["spec"]["submitterPodTemplate"]["spec"]["containers"][0].pop("name"),
    ],
)
def test_a_slip_in_a_manifest_is_found(spoil: Callable[[Object], None]) -> None:
    (job,) = of("sweep", "RayJob")
    check(job)
    spoil(job)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(job)


@each_overlay
def test_no_pod_may_more_than_the_restricted_profile_lets_it(overlay: str) -> None:
    (namespace,) = of(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    autoscalers = [cluster["autoscalerOptions"] for cluster in ray_clusters(built(overlay))]
    templates = list(pod_templates(built(overlay)))
    assert len(templates) >= 3
    for template in templates:
        pod = template["spec"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert {key for volume in pod["volumes"] for key in volume} <= {"name", "emptyDir", "configMap", "projected"}
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    for container in [one for template in templates for one in template["spec"]["containers"]] + autoscalers:
        context = container["securityContext"]
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


@each_overlay
def test_only_who_needs_kubernetes_gets_its_token(overlay: str) -> None:
    accounts = {found["metadata"]["name"]: found for found in of(overlay, "ServiceAccount")}
    may = {subject["name"] for found in of(overlay, "RoleBinding") for subject in found["subjects"]}
    for name, account in accounts.items():
        assert account.get("automountServiceAccountToken", True) == (name in may)
    for template in pod_templates(built(overlay)):
        pod = template["spec"]
        assert pod.get("automountServiceAccountToken", True) == (pod["serviceAccountName"] in may)
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert "kubernetes" not in mounted, "the autoscaler's, in which no job's code runs"
    for role in of(overlay, "Role"):
        assert not {"*", "update", "patch", "delete"} & {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert of(overlay, "ClusterRole", "ClusterRoleBinding", "Secret") == []


@each_overlay
def test_nobody_reaches_a_pod_who_is_not_named(overlay: str) -> None:
    policies = [found["spec"] for found in of(overlay, "NetworkPolicy")]
    (deny,) = [policy for policy in policies if not policy["podSelector"]]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert not deny.keys() & {"ingress", "egress"}
    labels = [template["metadata"]["labels"] for template in pod_templates(built(overlay))]
    for policy in policies:
        assert any(selects(policy["podSelector"], one) for one in labels), "a policy of no pod is a slip"
        for rule in policy.get("ingress", []):
            assert rule["from"]
            for peer in rule["from"]:
                assert peer["podSelector"], "never a whole namespace"
                assert "namespaceSelector" not in peer or rule["ports"] == [{"port": 8265, "protocol": "TCP"}]
        for rule in policy.get("egress", []):
            for peer in rule["to"]:
                assert "ports" in rule or selects(peer["podSelector"], {"app.kubernetes.io/part-of": "ray-asd"})
                assert "ipBlock" not in peer or "169.254.0.0/16" in peer["ipBlock"]["except"]
    for cluster in ray_clusters(built(overlay)):
        assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-asd-token"}
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


@each_overlay
def test_names_mean_something_and_a_head_is_not_drained(overlay: str) -> None:
    objects = built(overlay)
    names = {kind: {x["metadata"]["name"] for x in of(overlay, kind)} for kind in {x["kind"] for x in objects}}
    templates = list(pod_templates(objects))
    for template in templates:
        pod = template["spec"]
        assert pod["serviceAccountName"] in names["ServiceAccount"]
        assert pod["priorityClassName"] in names["PriorityClass"]
        maps = [source["configMapRef"]["name"] for one in pod["containers"] for source in one.get("envFrom", [])]
        maps += [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
        assert set(maps) <= names["ConfigMap"]
    (budget,) = of(overlay, "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == 1  # no share: Kubernetes does not know how many pods a RayCluster wants
    kept = [x for x in templates if selects(budget["spec"]["selector"], x["metadata"]["labels"])]
    assert [x["spec"]["containers"][0]["name"] for x in kept] == ["ray-head"]


@each_overlay
def test_a_cluster_starts_from_its_head_and_holds_what_the_recipes_ask_for(overlay: str) -> None:
    (cluster,) = ray_clusters(built(overlay))
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert all(template["spec"]["restartPolicy"] == "Never" for template in pod_templates(cluster))
    assert [group["minReplicas"] for group in cluster["workerGroupSpecs"]] == [0, 0]
    groups = []
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert container["resources"]["requests"]["cpu"] == limits["cpu"]  # Ray counts on limits
        memory = re.fullmatch(r"(\d+)Gi", limits["memory"])
        assert memory is not None
        groups.append((float(limits["cpu"]), float(limits.get("nvidia.com/gpu", 0)), float(memory[1])))
    assert [recipe for recipe in RECIPES for need in needs(recipe) if not any(map(need, groups))] == []


def needs(recipe: str) -> list[Callable[[tuple[float, float, float]], bool]]:
    """For each kind of worker whether a node of so many CPUs, GPUs and GB holds one."""
    resources = config.load(recipe).resources
    workers = [getattr(resources, name) for name in ("ingest", "augment", "train", "embed", "index")]
    return [
        lambda node, worker=worker: (
            worker.cpus <= node[0] and worker.gpus <= node[1] and (worker.memory_gb or 0) <= node[2]
        )
        for worker in workers
    ]


@pytest.mark.parametrize(("overlay", "command"), entry_points())
def test_entry_points_exist_and_parse(overlay: str, command: str) -> None:
    (site,) = [found["data"] for found in of(overlay, "ConfigMap") if found["metadata"]["name"] == "site"]
    known = re.sub(r"\$(\w+)", lambda name: str(site[name[1]]), command)
    python, script, *arguments = shlex.split(known)
    assert python == "/opt/ray_asd/.venv/bin/python", "the image's own"
    assert Path(script).parent == Path("/opt/ray_asd/jobs")
    assert (ROOT / "jobs" / Path(script).name).is_file()
    parsed = cli.cli.commands[Path(script).stem]
    with click.Context(parsed, resilient_parsing=False) as context:
        assert parsed.parse_args(context, list(arguments)) == []


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "cluster"])
def test_every_job_ends_and_leaves_no_cluster(overlay: str) -> None:
    (job,) = ray_jobs(built(overlay))
    assert job["shutdownAfterJobFinishes"]
    assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["submissionMode"] == "K8sJobMode"
    pods = list(pod_templates(job["rayClusterSpec"]))
    assert min(pod["spec"]["terminationGracePeriodSeconds"] for pod in pods) >= 60
    (container,) = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (wait,) = [int(x["value"]) for x in container["env"] if x["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    assert wait < job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_night_comes_before_a_sweep() -> None:
    value = {found["metadata"]["name"]: found["value"] for found in of("sweep", "PriorityClass")}
    assert value["ray-asd-nightly"] > value["ray-asd-sweep"]
    for overlay in OVERLAYS:
        used = {template["spec"]["priorityClassName"] for template in pod_templates(built(overlay))}
        assert used == {"ray-asd-nightly" if "nightly" in overlay else "ray-asd-sweep"}


def test_every_value_of_a_site_is_explained() -> None:
    text = (ROOT / "cluster/kubernetes/site/kustomization.yaml").read_text()
    plain = [line for line in text.splitlines() if re.match(r"\s+- [A-Z_]+=|\s+new", line) and " # " not in line]
    assert plain == []
    assert not re.search(r"(SECRET|TOKEN|PASSWORD)\w*=", text)
