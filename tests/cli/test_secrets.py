"""A secret in the environment, and one in a wrong URI, appear nowhere: outputs, logs, records, pages, errors."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_asd import store
from ray_asd.errors import redacted

SECRET = "c0ffee/Sentinel+8d1"
COMMANDS = """\
import sys
from ray_asd.cli import main
from ray_asd.engine import connection
place, *wrong = sys.argv[1:]
def call(*arguments):
    try:
        main([*arguments, "--json"])
    except SystemExit as end:
        print(arguments[0], end.code or 0)
fleet, root = place + "/fleet", place + "/runs"
with connection.connected(1):
    few = ["--machines", "fan", "--train", "24", "--train-target", "4", "--test", "2", "--seconds", "1"]
    call("simulate", fleet, *few)
    call("ingest", fleet, "--out", root)
    from ray_asd.build import archive
    clips = next(output.uri for output in archive.outputs(root))
    call("score", "--model", "spectral", "--clips", clips, "--out", root, "--set", "resources.embed_workers=1")
    scores = next(output.uri for output in archive.outputs(root) if output.marker.stage == "score")
    call("evaluate", "--scores", scores, "--out", root)
    call("report", "--runs", root, "--out", place + "/pages")
    call("ingest", place + "/none", "--out", root)
    for uri in wrong:
        call("ingest", uri, "--out", root)
        call("score", "--model", uri, "--clips", clips, "--out", root)
        call("ingest", fleet, "--out", root, "--set", "resources.ingest.cpus=" + uri)
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"s3://AKIA:{SECRET}@plant/runs is wrong", "s3://***@plant/runs is wrong"),
        (f"https://u:{SECRET}@hook/x, https://v:{SECRET}@hook", "https://***@hook/x, https://***@hook"),
        ("s3://plant/registry@v3 by ann@host", "s3://plant/registry@v3 by ann@host"),
        ('{"at": "http://127.0.0.1:8265", "by": "ann@host"}', '{"at": "http://127.0.0.1:8265", "by": "ann@host"}'),
        ('{"at":"http://127.0.0.1:8265","by":"ann@host"}', '{"at":"http://127.0.0.1:8265","by":"ann@host"}'),
    ],
)
def test_credentials_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where Ray keeps its logs: short, for sockets below it allow 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        yield Path(folder)


def test_a_secret_appears_nowhere(bucket: str, tmp_path: Path, temporary: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    environment |= {"AWS_SECRET_ACCESS_KEY": SECRET, "RAY_TMPDIR": str(temporary)}
    wrong = [f"s3://AKIA:{SECRET}@plant/in", f"https://me:{SECRET}@plant/in"]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, bucket, *wrong],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if not line.startswith("{")]
    assert codes == [0] * 5 + [2] * 7, done.stdout + done.stderr
    assert [json.loads(line)["command"] for line in done.stdout.splitlines() if line.startswith("{")]
    kept = {entry.path: store.read(store.join(bucket, entry.path)) for entry in store.listing(bucket)}
    kept |= {str(path): path.read_bytes() for path in temporary.rglob("*") if path.is_file()}
    kept |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.endswith(".html") for name in kept)
    assert any("/status/" in name for name in kept)
    assert any("/events/" in name for name in kept)
    assert any("raylet.out" in name for name in kept)
    shown = kept | {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    assert [name for name, content in shown.items() if SECRET.encode() in content or b"Sentinel" in content] == []
