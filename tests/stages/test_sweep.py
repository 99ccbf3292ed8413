"""The sweep on a small grid: shared work once, failures apart."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from ray_asd import build, cli, grid, store
from ray_asd.build import Output
from ray_asd.cli import live
from ray_asd.errors import UserError
from ray_asd.stages.sweep import Sweep
from ray_asd.tables import Folder
from stages import chain

GRID = """\
- method: [autoencoder, mobilenet]
- {backbone: hubert, WS: true, SA: true, TFP: [false, true]}
"""
SYSTEMS = ["AutoEncoder (MSE)", "MobileNet", "hubert+WS+SA (random:tiny)", "hubert+WS+SA+TFP (random:tiny)"]


def cells(path: Path, text: str = GRID) -> list[grid.Cell]:
    path.write_text(text)
    return grid.load(str(path), "tiny", chain.BASELINE_SETTINGS)


@pytest.fixture(scope="module")
def root(system: chain.Chain, baselines: dict[str, Output], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root that holds the chain of the other tests, the trained baselines, and nothing else that they have made."""
    place = str(tmp_path_factory.mktemp("sweep") / "root")
    return chain.copied(system.root, place, system.metrics, *baselines.values())


@dataclass(frozen=True)
class Added:
    """A sweep whose last cell was there already, and one of whose cells is bad: what was there, what it told."""

    root: str
    before: dict[str, str]
    cells: list[grid.Cell]
    sweep: Sweep
    told: list[str]
    shown: str


@pytest.fixture(scope="module")
def added(system: chain.Chain, root: str, tmp_path_factory: pytest.TempPathFactory) -> Added:
    before = attempts(root)
    bad = "- {backbone: wavlm, set: {backbone.source: /no/such/folder}}\n"
    chosen = cells(tmp_path_factory.mktemp("grid") / "grid.yaml", GRID + bad)
    sweep = Sweep("test", chosen, system.clips, root)
    stderr, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(stderr), live.live(sweep) as show:
        sweep.run(show)
    Console(file=shown, width=200).print(live._table(sweep))
    return Added(root, before, chosen, sweep, stderr.getvalue().splitlines(), shown.getvalue())


def attempts(root: str) -> dict[str, str]:
    """The attempt that each finished stage below a root was made by."""
    folders = [f"{root}/{stage}/{name}" for stage in store.folders(root) for name in store.folders(f"{root}/{stage}")]
    return {folder: output.marker.attempt for folder in folders if (output := build.find(folder))}


def test_a_sweep_adds_what_is_missing_and_a_bad_cell_harms_no_other(
    system: chain.Chain, added: Added, tmp_path: Path
) -> None:
    sweep, before, root = added.sweep, added.before, added.root
    ((row, error),) = sweep.failed
    assert row.cell.system == "wavlm+WS+SA+TFP (/no/such/folder) [backbone.source=/no/such/folder]"
    assert error.startswith("/no/such/folder: no config.json")
    after = attempts(root)
    assert {folder: attempt for folder, attempt in after.items() if folder in before} == before
    made = [folder.split("/")[-2] for folder in after if folder not in before]
    baseline = ["direct", "enroll", "score", "evaluate"]  # of each; they were trained for other tests
    backbone = ["embed", "enroll", "score", "evaluate"]  # it was fine-tuned for its sibling with TFP
    assert sorted(made) == sorted([*baseline, *baseline, *backbone])
    assert sweep.counts == {"cells": 5, "failed": 1, "stages": len(sweep.engine.nodes), "made": len(made)}
    assert not sweep.reused
    names = [output.marker.summary["systems"][0]["system"] for output in sweep.metrics]
    assert names == SYSTEMS

    compared = sweep.compared()
    assert compared is not None
    assert compared.table(Folder.CELLS)["system"].to_pylist() == [SYSTEMS[0], "spectral", *SYSTEMS[1:]]
    assert compared.marker.counts == {"systems": 5, "pairs": 10}
    for cell in compared.table(Folder.CELLS).to_pylist():
        for output in sweep.metrics:
            for summary in output.marker.summary["systems"]:
                if summary["system"] == cell["system"]:
                    assert cell["mean"] == pytest.approx(summary["score"], abs=1e-12)

    again = chain.swept(cells(tmp_path / "grid.yaml"), system.clips, root)
    assert again.reused
    assert again.engine.to_do == []
    assert again.shared[system.base.uri] == 0, "what lies below finished cells is not looked at"


def test_the_way_is_told(added: Added) -> None:
    for cell in added.cells[:2]:
        lines = [line.removeprefix(f"{cell.label}: ") for line in added.told if line.startswith(cell.label)]
        stages = [line.split("  ")[0] for line in lines]
        assert stages[-1] == "done"
        assert stages.index("score") < stages.index("done")
    assert all(cell.label in added.shown for cell in added.cells[:-1])
    stages_done = f"{added.sweep.counts['stages']} of {added.sweep.counts['stages']} stages done"
    assert stages_done in added.shown


def test_clips_that_cannot_be_swept(system: chain.Chain, tmp_path: Path) -> None:
    marker = system.clips.marker.model_copy(update={"counts": {"train": 3}})
    with pytest.raises(UserError, match=r"holds no test clips; a sweep needs both train and test clips$"):
        Sweep("test", cells(tmp_path / "grid.yaml"), Output(system.clips.uri, marker), system.root)


def test_the_plan_is_told(system: chain.Chain, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = cells(tmp_path / "grid.yaml", "- {backbone: [hubert, wavlm], WS: false, SA: true, TFP: false}")
    live.show_plan(Sweep("test", chosen, system.clips, root))
    plan = capsys.readouterr().out.splitlines()
    variants = next(line for line in plan if "/augment/speed-" in line)
    assert variants.startswith("done ")
    assert variants.endswith(", shared by 2 cells")
    assert sum(line.startswith("to do ") and "/train/" in line for line in plan) == 2
    assert "2 cells, " in plan[-5]
    assert sorted(plan[-3:]) == ["at once: 2 x embed", "at once: 2 x score", "at once: 2 x train"]


def test_a_failed_cell_is_told_after_the_table_of_the_others(
    system: chain.Chain, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line; the other cell is done already."""
    path = tmp_path / "grid.yaml"
    path.write_text("- backbone: hubert\n- {backbone: wavlm, set: {backbone.source: /no/such/folder}}\n")
    settings = [part for setting in chain.BASELINE_SETTINGS for part in ("--set", setting)]
    command = ["sweep", "--recipe", "tiny", "--grid", str(path), "--clips", system.clips.uri, "--out", root]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--report", str(tmp_path / "report"), *settings, "--json"])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    failed = (
        "wavlm+WS+SA+TFP (/no/such/folder) [backbone.source=/no/such/folder] seed 0: /no/such/folder: no config.json"
    )
    assert summary["status"] == "failed"
    assert summary["error"].startswith(f"1 of 2 cells failed, the first one is {failed}")
    assert summary["counts"]["failed"] == 1
    assert f"| {SYSTEMS[-1]} " in err
    assert store.holds_outputs(str(tmp_path / "report")), "no ingest of a folder above takes it for recordings"
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Cells that failed" in text
    assert "/no/such/folder: no config.json" in text
