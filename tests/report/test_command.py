"""``ray-asd report``: its options, what it says it wrote, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from made_up import plant
from ray_asd import cli, store


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *arguments])
    return int(str(ended.value.code))


def test_a_page_per_run_and_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(str(tmp_path / "runs"), str(tmp_path / "recordings"))
    place = str(tmp_path / "report")
    assert call("--runs", str(tmp_path / "runs"), "--out", place, "--clips", "2", "--no-audio", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["counts"] == {"pages": 2}
    assert told["outputs"]["report"] == f"{place}/report.html"
    pages = [name for name in store.files(f"{place}/runs") if name.endswith(".html")]
    assert len(pages) == 2
    for name in pages:
        text = store.read(f"{place}/runs/{name}").decode()
        assert text.count("<img ") == 6
        assert "<audio" not in text


@pytest.mark.parametrize(("option", "value"), [("--clips", "11"), ("--clips", "-1"), ("--clips", "many")])
def test_a_wrong_number_of_clips_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert call("--runs", str(tmp_path), "--out", str(tmp_path), option, value) == 2
    assert value in capsys.readouterr().err


def test_a_root_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--runs", str(tmp_path), "--out", str(tmp_path)) == 2
    assert f"{tmp_path} holds no METRICS; run `ray-asd evaluate` first" in capsys.readouterr().err


def test_neither_ray_nor_torch_is_needed(tmp_path: Path) -> None:
    plant(str(tmp_path / "runs"), str(tmp_path / "recordings"))
    program = (
        "import sys; from ray_asd import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "sys.exit(code or sorted({'ray', 'torch', 'transformers', 'faiss'} & set(sys.modules)) or 0)"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "report",
        "--runs",
        str(tmp_path / "runs"),
        "--out",
        str(tmp_path / "out"),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "counts: pages 2" in finished.stdout
