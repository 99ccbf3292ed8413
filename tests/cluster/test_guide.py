"""What the operator's guide says is there, parses, and follows from what was measured."""

import re
import shlex
from math import ceil

import click
import pytest

from manifests import CLUSTER, ROOT, built, ray_clusters
from ray_asd import cli
from test_image import TAG

GUIDE = (CLUSTER / "README.md").read_text()
SUBMITTED = re.findall(r"jobs/submit\.py .*?-- (.*)", GUIDE)
CLIP_SECONDS, NIGHT_HOURS = 10, 4


@pytest.mark.parametrize("line", SUBMITTED)
def test_its_jobs_parse(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    assert (ROOT / f"jobs/{name}.py").is_file()
    with click.Context(cli.cli.commands[name], resilient_parsing=False) as context:
        assert cli.cli.commands[name].parse_args(context, arguments) == []


def test_its_files_are_there() -> None:
    named = set(re.findall(r"cluster/(?:kubernetes/overlays/)?\w[\w./-]*", GUIDE)) | {
        f"cluster/{name}" for name in re.findall(r"^\| `(.*?)` \|", GUIDE, re.MULTILINE) if "/" in name or "." in name
    }
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
    listed = re.search(r"^\| `kubernetes/overlays` \|(.*)\|$", GUIDE, re.MULTILINE)
    assert listed is not None
    overlays = {path.name for path in (CLUSTER / "kubernetes/overlays").iterdir()}
    assert set(re.findall(r"`([\w-]+)`", listed[1])) == overlays
    assert set(re.findall(r"/ray-asd:(\S+)", GUIDE)) == {TAG}


def test_the_nodes_follow_from_the_benchmark() -> None:
    figures = (ROOT / "ray_asd/benchmarks/README.md").read_text()
    row = re.search(r"^\| wavlm \| ([\d.]+) \| ([\d.]+) \|", figures, re.MULTILINE)  # bf16, float32: 16 windows of 2 s
    assert row is not None
    per_clip = {kind: float(row[n]) * 2 / 16 * CLIP_SECONDS / 2 for n, kind in ((2, "float32"), (1, "bf16"))}  # 2 cores
    hourly = {kind: 3600 / seconds for kind, seconds in per_clip.items()}
    assert f"{hourly['float32']:,.0f} recordings a CPU-hour in float32, {hourly['bf16']:,.0f} in bf16" in GUIDE
    (cluster,) = ray_clusters(built("cluster"))
    cpus = int(cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    rows = re.findall(r"^\| (\d+) (thousand|million) \| ([\d.,]+), ([\d.,]+) \| (\d+), (\d+) \|", GUIDE, re.MULTILINE)
    assert len(rows) == 3
    for number, unit, *said in rows:
        clips = int(number) * {"thousand": 1000, "million": 1_000_000}[unit]
        for kind, hours, nodes in (("float32", said[0], said[2]), ("bf16", said[1], said[3])):
            assert float(hours.replace(",", "")) == pytest.approx(clips / hourly[kind], rel=0.05)
            assert int(nodes) == ceil(clips / hourly[kind] / NIGHT_HOURS / cpus)
