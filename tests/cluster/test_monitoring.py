"""Dashboard and rules ask for figures that exist, and the rules ring when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from manifests import OVERLAYS, Object, built, check, pod_templates, selects
from ray_asd.engine import telemetry

MONITORING = "../monitoring"
OF_RAY = {"NodeAddress"}  # labels of every figure
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool, which Debian's package prometheus brings")


def of(kind: str) -> Object:
    (found,) = [found for found in built(MONITORING) if found["kind"] == kind]
    return found


def rules() -> list[Object]:
    return [rule for group in of("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    dashboard = json.loads(of("ConfigMap")["data"]["dashboard.json"])
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return shown + [rule["expr"] for rule in rules()]


def exported() -> dict[str, set[str]]:
    """Labels of each series by its name."""
    found = {}
    for name, figure in telemetry.FIGURES.items():
        endings = ("_bucket", "_sum", "_count") if figure.kind == "histogram" else ("",)
        labels = set(figure.tags) | OF_RAY | ({"le"} if figure.kind == "histogram" else set())
        found |= {telemetry.exported(name) + ending: labels for ending in endings}
    return found


@pytest.mark.parametrize("query", queries())
def test_each_query_asks_for_figures_and_labels_that_exist(query: str) -> None:
    known = exported()
    asked = set(re.findall(r"\b(?:ray_)?asd_\w+", query))
    assert asked
    assert asked <= known.keys()
    labels = {name for group in re.findall(r"by \(([^)]*)\)", query) for name in re.split(r",\s*", group)}
    labels |= set(re.findall(r"(\w+)!?=~?\"", query))
    assert all(labels <= known[name] for name in asked)


def test_every_figure_is_shown_and_told_somewhere() -> None:
    asked = {name for query in queries() for name in re.findall(r"ray_asd_\w+", query)}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    assert {telemetry.exported(name) for name in telemetry.FIGURES} == shown
    source = "".join(path.read_text() for path in Path(telemetry.__file__).parents[1].rglob("*.py"))
    assert [name for name in telemetry.FIGURES if source.count(f'"{name}"') < 2] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That holds the rules as ``rules.yml``."""
    place = tmp_path_factory.mktemp("rules")
    (place / "rules.yml").write_text(yaml.safe_dump(of("PrometheusRule")["spec"]))
    return place


def promtool(command: str, folder: Path, file: str) -> "subprocess.CompletedProcess[str]":
    words = [str(PROMTOOL), command, "rules", file]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@needs_promtool
def test_rules_are_rules(folder: Path) -> None:
    ran = promtool("check", folder, "rules.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules())} rules found" in ran.stdout


NIGHT = 'ray_asd_night_finished{fleet="plant"}'
CLIPS = 'ray_asd_night_clips{fleet="plant",outcome="%s"}'
DRIFT = 'ray_asd_night_drift{fleet="plant",scope="%s"}'
CASES = [  # an alert, series of a sample an hour, a moment, and whether it rings then
    ("NightDidNotRun", {NIGHT: "0 _x30"}, "25h", False),
    ("NightDidNotRun", {NIGHT: "0 _x30"}, "27h", True),
    ("NightDidNotRun", {NIGHT: "0 _x23 86400 _x30"}, "40h", False),
    ("UnscoredShareGrows", {CLIPS % "scored": "100x191", CLIPS % "unscored": "1x160 9x30"}, "170h", True),
    ("UnscoredShareGrows", {CLIPS % "scored": "100x191", CLIPS % "unscored": "9x191"}, "170h", False),
    ("FleetDrifts", {DRIFT % "fleet": "0 1 _x9"}, "3h", True),
    ("FleetDrifts", {DRIFT % "machine": "0 7 _x9"}, "3h", False),
]


@pytest.fixture(scope="module")
def complaints(folder: Path) -> str:
    """What ``promtool`` says of all cases where no alert is expected, by the case's number."""
    tests = []
    for number, (alert, series, at, _) in enumerate(CASES):
        given = [{"series": name, "values": values} for name, values in series.items()]
        expected = [{"eval_time": at, "alertname": alert, "exp_alerts": []}]
        tests.append({"name": f"#{number}", "interval": "1h", "input_series": given, "alert_rule_test": expected})
    (folder / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "15m", "tests": tests})
    )
    ran = promtool("test", folder, "tests.yml")
    return ran.stdout + ran.stderr


@needs_promtool
@pytest.mark.parametrize("number", range(len(CASES)))
def test_an_alert_rings_when_it_should(complaints: str, number: int) -> None:
    alert, _, _, rings = CASES[number]
    _, _, told = complaints.partition(f"name: #{number},")
    assert bool(told) == rings, complaints
    assert not rings or f'alertname="{alert}"' in told.partition("name: #")[0]


def test_prometheus_may_read_what_the_pods_export() -> None:
    (endpoint,) = of("PodMonitor")["spec"]["podMetricsEndpoints"]
    policy = of("NetworkPolicy")
    check(policy)
    for overlay in OVERLAYS:
        pods = [pod for pod in pod_templates(built(overlay)) if "ray.io/node-type" in pod["metadata"]["labels"]]
        assert pods
        for pod in pods:
            labels = pod["metadata"]["labels"]
            assert selects(of("PodMonitor")["spec"]["selector"], labels)
            assert selects(policy["spec"]["podSelector"], labels)
            ports = {
                port["name"]: port["containerPort"] for c in pod["spec"]["containers"] for port in c.get("ports", [])
            }
            assert ports[endpoint["port"]] == policy["spec"]["ingress"][0]["ports"][0]["port"]
