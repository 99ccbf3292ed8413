"""The Dockerfile passes a linter, and image, cluster files, constraints and project agree."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from manifests import CLUSTER, OVERLAYS, ROOT, built, program, ray_clusters

DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
TAG = f"{PROJECT['version']}-ray{CONSTRAINTS['ray']}"


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [program("hadolint"), str(CLUSTER / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_it_runs_as_a_numbered_user_and_installs_what_the_tests_ran_with() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)[-1] == "1000:100"  # Kubernetes knows no names
    (python,) = re.findall(r"^FROM rayproject/ray:\$\{RAY\}-py3(\d+)-cpu$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^ARG RAY=(.*)", DOCKERFILE, re.MULTILINE) == [CONSTRAINTS["ray"]]
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert int(low) <= int(python) < int(high)
    assert "pip install --constraint constraints.txt . boto3" in DOCKERFILE
    assert "boto3" in CONSTRAINTS


def test_only_what_it_copies_is_sent_to_the_builder() -> None:
    copied = {name for line in re.findall(r"^COPY \S+ (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    lines = [line for line in ignored if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_the_small_variant_asks_for_no_cuda(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    commands = [re.sub(r"; \\$", "", line.strip()) for line in DOCKERFILE.splitlines() if " sed --in-place -e" in line]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    wanted = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["dependencies"]
    (faiss,) = [one for one in wanted if one.startswith("faiss")]
    assert re.fullmatch(r"faiss-cpu[^;]*", faiss)
    assert len(wanted) == len(PROJECT["dependencies"]) - 1
    assert f"faiss-cpu=={CONSTRAINTS['faiss-gpu']}" in (tmp_path / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_image_runs_everywhere(overlay: str) -> None:
    images = re.findall(r"image: (.*)", yaml.safe_dump(built(overlay)))
    assert len(images) >= 3
    assert set(images) == {f"registry.example.com/ray-asd:{TAG}"}
    assert [cluster["rayVersion"] for cluster in ray_clusters(built(overlay))] == [CONSTRAINTS["ray"]]


def test_the_virtual_machines_run_the_same_image() -> None:
    image = yaml.safe_load((CLUSTER / "aws.yaml").read_text())["docker"]["image"]
    assert image.endswith(f"/ray-asd:{TAG}")
    assert set(re.findall(r"/ray-asd:(\S+?)(?:-cpu)?[\s]", DOCKERFILE)) == {TAG}
