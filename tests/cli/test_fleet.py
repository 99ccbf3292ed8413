"""Releases by command: the gate, what is told, and what scores say of the version that gave them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from commands import Run, run
from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.data import simulate
from ray_asd.stages.fleet import registry
from ray_asd.tables import Folder
from stages import chain


@dataclass(frozen=True)
class Plant:
    """CLIPS of two machines, detectors of both, and one of the fan alone."""

    root: str
    registry: str
    clips: Output
    detectors: tuple[Output, Output]
    fan: Output

    def release(self, detector: str, *arguments: str) -> Run:
        return run("release", "--detector", detector, "--to", self.registry, "--json", *arguments)

    @property
    def gate(self) -> tuple[str, ...]:
        return "--clips", self.clips.uri, "--out", self.root, "--set", chain.ONE_WORKER

    def score(self, detector: str) -> Run:
        used = ("--clips", self.clips.uri, "--out", self.root, "--set", chain.ONE_WORKER)
        return run("score", "--detector", detector, *used, "--json")


@pytest.fixture(scope="module")
def plant(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("plant")
    root, recordings = str(folder / "runs"), folder / "fleet"
    fleet = simulate.Fleet(machines=("fan", "valve"), train_source=20, train_target=4, test=3, seconds=1.0)
    simulate.write(fleet, str(recordings))
    shutil.copytree(recordings / "fan", folder / "fan" / "fan")
    clips, fan = (
        chain.ingested(str(place), root, dataset="fleet", layout="dcase2023") for place in (recordings, folder / "fan")
    )
    detectors = chain.spectral(clips, root), chain.spectral(clips, root, "scoring.backend.neighbours=1")
    return Plant(root, str(folder / "registry"), clips, detectors, chain.spectral(fan, root))


def scores(uri: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = build.resolve(uri, "score").table(Folder.SCORES).to_pylist()
    return rows


def test_a_plant_releases_compares_and_goes_back(plant: Plant) -> None:
    first, second = plant.detectors
    begun = plant.release(first.uri, "--note", "to begin with", "--by", "ann")
    assert (begun.code, begun.err) == (0, "v1 is current\n")
    assert begun.summary["outputs"] == {"release": f"{plant.registry}/versions/v1"}
    again = plant.release(first.uri)
    assert (again.summary["reused"], again.err) == (True, "v1 is current already\n")

    planned = plant.release(second.uri, *plant.gate, "--dry-run")
    assert planned.code == 0
    assert "to do" in planned.out
    assert registry.numbered(plant.registry) == ["v1"]
    compared = plant.release(second.uri, *plant.gate, "--note", "one neighbour")
    assert compared.code == 0, compared.err
    lines = compared.err.splitlines()
    assert lines[-1] == "v2 is current, v1 was before"
    table = lines[-7:-1]
    assert [line[:22].strip() for line in table] == [
        *("", "score", "false alarms", "false alarms, source", "false alarms, target", "difference"),
    ]
    assert table[2].count(" of 12") == 2, "healthy clips"
    kept = registry.version(plant.registry, "v2").release
    assert kept is not None
    assert kept.metrics is not None
    assert f"{100 * kept.metrics['score']:.2f} [" in table[1]
    assert kept.provenance["made_from"][0]["stage"] in ("ingest", "embed")

    worse = plant.release(plant.fan.uri, *plant.gate)
    assert worse.code == 3
    refusal = "ray-asd: worse than v2: it does not score 12 clip(s) of valve 00; not released without --force"
    assert worse.err.splitlines()[-1] == refusal
    assert worse.summary["status"] == "gate"
    assert registry.numbered(plant.registry) == ["v1", "v2"]
    forced = plant.release(plant.fan.uri, *plant.gate, "--force", "--note", "no valves any more")
    assert forced.code == 0
    assert build.resolve(forced.summary["outputs"]["gate"], "gate").reused

    back = run("rollback", plant.registry, "--note", "there are valves", "--by", "bob")
    assert (back.code, back.err) == (0, "v2 is current again, v3 was before\n")
    listed = run("ls", plant.registry).out.splitlines()
    assert [line.split()[0] for line in listed[:3]] == ["v1", "v2", "v3"]
    assert [" current " in line for line in listed[:3]] == [False, True, False]
    assert listed[3][18:] == "release of v1 by ann: to begin with"
    assert listed[5][18:] == f"forced release of v3 after v2 by {registry.whoever()}: no valves any more"
    assert listed[6][18:] == "rollback of v2 after v3 by bob: there are valves"
    found = json.loads(run("ls", plant.registry, "--json").out)["outputs"]
    assert found["current"] == found["v2"] == f"{plant.registry}/versions/v2"
    shown = run("show", plant.registry).out
    assert json.loads(shown)["summary"]["version"] == "v2"
    assert json.loads(run("show", f"{plant.registry}@v1").out)["digest"] == first.marker.digest


def test_scores_say_which_version_gave_them(plant: Plant) -> None:
    place = store.join(store.parent(plant.registry), "other")
    for detector in plant.detectors:
        assert run("release", "--detector", detector.uri, "--to", place).code == 0
    by_hand, by_first, by_current = (
        plant.score(uri) for uri in (plant.detectors[0].uri, f"{place}@v1", place)
    )  # fmt: skip
    assert [found.code for found in (by_hand, by_first, by_current)] == [0, 0, 0]
    assert by_current.summary["outputs"]["detector"] == f"{place}/versions/v2"
    plain, first, current = (scores(found.summary["outputs"]["scores"]) for found in (by_hand, by_first, by_current))
    assert {row["version"] for row in plain} == {None}
    assert {row["version"] for row in first} == {"v1"}
    assert {row["version"] for row in current} == {"v2"}
    assert [row | {"version": None} for row in first] == plain, "and are the same scores"
    assert plant.score(f"{place}@v1").summary["reused"]
    clips = ("--add", plant.clips.uri, "--out", plant.root, "--json")
    extended = run("enroll", "--detector", f"{place}@v1", *clips)
    assert extended.code == 0, extended.err
    assert "version" not in build.resolve(extended.summary["outputs"]["detector"], "enroll").marker.summary

    vectors = f"{place}/versions/v2/files/members/0/vectors.f32"
    content = bytearray(Path(vectors).read_bytes())
    content[0] ^= 1
    Path(vectors).write_bytes(content)
    refused = plant.score(place)
    assert refused.code == 1
    assert refused.err.startswith(f"ray-asd: {vectors} is damaged: ")
    assert run("rollback", place).code == 0
    assert plant.score(place).summary["reused"], "by the one before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "c"], "--clips and --out go together"),
        (["--out", "o"], "--clips and --out go together"),
        (
            ["--detector", "nonsense"],
            "nonsense holds no detector (no marker.json); allowed: an output of enroll, a registry",
        ),
        (["--detector", "{registry}@v99"], "unknown version of {registry} 'v99'; allowed: v1"),
        (["--metrics", "{clips}"], "is the output of 'ingest'; allowed: evaluate"),
        (["--to", "gs://bucket"], "unknown scheme 'gs://'; allowed: s3://bucket/key, a local path"),
    ],
)
def test_what_cannot_be_released(plant: Plant, arguments: list[str], message: str) -> None:
    place = store.join(store.parent(plant.registry), "refusals")
    names = {"registry": place, "clips": plant.clips.uri}
    assert run("release", "--detector", plant.fan.uri, "--to", place).code == 0
    given = [argument.format(**names) for argument in arguments]
    refused = run("release", "--detector", plant.detectors[0].uri, "--to", place, *given)
    assert refused.code == 2
    assert message.format(**names) in refused.err
    assert refused.err.count("\n") == 1
    assert registry.numbered(place) == ["v1"]


def test_metrics_go_with_the_version_that_they_are_of(plant: Plant) -> None:
    place = store.join(store.parent(plant.registry), "measured")
    scored = plant.score(plant.detectors[0].uri).summary["outputs"]["scores"]
    used = ("--out", plant.root, "--baseline", "log-mel", "--json")
    metrics = run("evaluate", "--scores", scored, *used).summary["outputs"]["metrics"]
    others = run("release", "--detector", plant.fan.uri, "--to", place, "--metrics", metrics)
    assert others.code == 2
    assert f"nothing of what {plant.fan.uri} scores; allowed: METRICS of its SCORES" in others.err
    assert (
        run("release", "--detector", plant.detectors[0].uri, "--to", place, "--metrics", metrics, "--candidate").code
        == 0
    )
    (version,) = registry.versions(place)
    assert version.release is not None
    summary = build.resolve(metrics, "evaluate").marker.summary["systems"][0]
    assert version.release.metrics == {"uri": metrics, **summary}
    assert registry.newest(place) is None, "a candidate"
    assert f"score {100 * summary['score']:.2f}" in run("ls", place).out
