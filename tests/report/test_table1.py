"""The paper's table of made-up systems."""

import numpy as np
import pytest

from made_up import BASELINE, compared, evaluated, recipe, scored, scores
from ray_asd.build import Output
from ray_asd.config import Recipe
from ray_asd.report import paper, table1
from ray_asd.report.rows import Row, collect
from ray_asd.tables import Folder

SYSTEMS = {  # skill of each; the order is not the table's
    0.9: recipe("hubert", ws=True, sa=True),
    0.2: recipe("hubert", method="mobilenet"),
    0.7: recipe("wavlm", ws=True),
    0.6: recipe("hubert", ws=True),
    0.1: recipe("hubert", method="autoencoder"),
    0.5: recipe("hubert", ws=False),
}
LINES = [
    "AutoEncoder (MSE)",
    "MobileNet",
    BASELINE,
    "hubert",
    "hubert+WS",
    "wavlm+WS",
    "Avg WS",
    "hubert+WS+SA",
]


def swept(root: str, systems: dict[float, Recipe], seeds: tuple[int, ...] = (0,)) -> tuple[list[Row], Output]:
    """The rows and the comparison of these systems and the baseline."""
    baseline = scored(root, None, scores(50, 0.3))
    ran = [
        (of, seed, scored(root, of, scores(10 * number + seed, skill), seed))
        for number, (skill, of) in enumerate(systems.items())
        for seed in seeds
    ]
    rows = collect([evaluated(root, found, baseline) for _, _, found in ran])
    everything = [(BASELINE, None, baseline), *((of.system, seed, found) for of, seed, found in ran)]
    return rows, compared(root, everything)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def systems(root: str) -> list[table1.System]:
    rows, comparison = swept(root, SYSTEMS)
    return table1.systems(rows, comparison.table(Folder.CELLS), comparison.uri)


def test_rows_stand_as_in_the_paper_with_averages_over_backbones(systems: list[table1.System]) -> None:
    table = table1.table(systems, is_papers_data=False)
    assert table.header == ["system", "all machines", "fan", "valve"]
    assert [row[0].text for row in table.rows] == LINES
    own = {system.name: system for system in systems}
    average = table.rows[LINES.index("Avg WS")]
    expected = np.mean([own["hubert+WS"].mean, own["wavlm+WS"].mean])
    assert average[1].text == f"{100 * expected:.2f}"
    fans = [own[name].machines["fan"] for name in ("hubert+WS", "wavlm+WS")]
    assert average[2].text == f"{100 * np.mean(fans):.2f}"


def test_a_figure_has_one_interval_throughout_the_report(root: str) -> None:
    rows, comparison = swept(root, SYSTEMS)
    of_cells = {cell["system"]: (cell["low"], cell["high"]) for cell in comparison.table(Folder.CELLS).to_pylist()}
    assert len(of_cells) == len(rows)
    for row in rows:
        assert (row.low, row.high) == pytest.approx(of_cells[row.system], abs=1e-12)


def test_each_figure_links_to_the_run_that_produced_it(systems: list[table1.System]) -> None:
    for system, row in zip(systems, (row for row in table1.table(systems, False).rows if row[0].uri), strict=True):
        assert {cell.uri for cell in row} == {system.uri}
        assert "/evaluate/" in system.uri


def test_the_papers_figures_stand_beside_ours_on_its_data_only(systems: list[table1.System]) -> None:
    lines = {row[0].text: row for row in table1.table(systems, is_papers_data=True).rows}
    assert [cell.text for cell in lines["hubert+WS, published"][:2]] == ["hubert+WS, published", "62.36"]
    assert lines["MobileNet, published"][1].text == "54.13"
    assert not [name for name in lines if name.startswith(BASELINE) and "published" in name]
    apart = table1.published_table()
    assert [row[0].text for row in apart.rows[-4:]] == [
        f"{family}+WS+SA+TFP" for family in ("wav2vec2", "unispeech", "hubert", "wavlm")
    ]
    assert [cell.text for cell in apart.rows[0]][:3] == ["AutoEncoder", "54.96", "61.47"]
    assert "do not compare" in apart.notes[0]
    assert paper.CITATION in apart.notes[0]


def test_several_seeds_are_one_row_with_mean_and_deviation(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows, comparison = swept(str(tmp_path_factory.mktemp("seeds")), {0.6: recipe("hubert")}, seeds=(0, 1, 2))
    _, system = table1.systems(rows, comparison.table(Folder.CELLS), comparison.uri)
    own = [row for row in rows if row.system == "hubert+WS"]
    assert system.seeds == [0, 1, 2]
    assert system.mean == pytest.approx(np.mean([row.score for row in own]), abs=1e-12)
    assert system.std == pytest.approx(np.std([row.score for row in own], ddof=1), abs=1e-12)
    assert system.machines["fan"] == pytest.approx(np.mean([row.machines["fan"] for row in own]))
    assert system.uri == comparison.uri
    text = table1.table([system], False).rows[0][1].text
    assert text.startswith(f"{100 * system.mean:.2f} ± {100 * system.std:.2f} [")


def test_values_for_other_programs_are_not_rounded(systems: list[table1.System]) -> None:
    records = {record["system"]: record for record in table1.values(systems)}
    assert len(records) == len(SYSTEMS) + 1
    hubert = next(system for system in systems if system.name == "hubert+WS+SA")
    record = records["hubert+WS+SA"]
    assert (record["WS"], record["SA"], record["TFP"]) == (True, True, False)
    assert (record["all_machines"], record["fan"]) == (hubert.mean, hubert.machines["fan"])
    assert record["published_all_machines"] == pytest.approx(0.6306)
    assert (records[BASELINE]["method"], records[BASELINE]["WS"]) == ("other", None)
