"""Tables say what they are: captions, columns and CSV files follow the protocol that the figures are of."""

import csv
import io
from pathlib import Path

import pytest

from official_years import YEARS
from ray_asd import report, store
from ray_asd.build import Output, steps
from ray_asd.report import certainty, overview
from ray_asd.report.rows import collect
from ray_asd.stages.comparison import evaluate

OF_2020 = "Arithmetic mean of AUC and pAUC over the ids of a machine type, then over machine types (official DCASE 2020"
OF_2021 = (
    "Harmonic mean of AUC and pAUC of each domain, its normal clips against its own anomalies (official DCASE 2021"
)
OF_2023 = "Harmonic mean of source AUC, target AUC and pAUC (official DCASE 2023"
CAPTIONS = {"2020": OF_2020, "2021": OF_2021, "2022": OF_2023, "2024": OF_2023}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Output, float]]:
    """METRICS of the years' folders, and what their own scripts give."""
    found = {}
    for year in CAPTIONS:
        folder = tmp_path_factory.mktemp(year)
        figure = YEARS[year][0](folder)
        step = evaluate.submission_step(str(folder / "teams"), str(folder))
        found[year] = steps.ensure(step, str(folder / "root")), figure
    return found


@pytest.mark.parametrize("year", CAPTIONS)
def test_the_overview_says_what_its_figures_are(judged: dict[str, tuple[Output, float]], year: str) -> None:
    output, expected = judged[year]
    text = report.overview_of([output])
    assert CAPTIONS[year] in text
    assert "definitions), in percent, over all machines and per machine type" in text
    assert sum(caption in text for caption in {OF_2020, OF_2021, OF_2023}) == 1
    (row,) = collect([output])
    assert (row.score, row.protocols) == (pytest.approx(expected, rel=1e-12), (YEARS[year][1],))
    (record,) = overview.values([row])
    assert record["protocol"] == YEARS[year][1]


def test_a_machines_figure_is_the_mean_that_the_protocol_takes(judged: dict[str, tuple[Output, float]]) -> None:
    (row,) = collect([judged["2020"][0]])
    assert row.score == pytest.approx(sum(row.machines.values()) / len(row.machines), rel=1e-12)  # type: ignore[arg-type]
    for year in ("2021", "2024"):
        (row,) = collect([judged[year][0]])
        harmonic = len(row.machines) / sum(1 / figure for figure in row.machines.values() if figure)
        assert row.score == pytest.approx(harmonic, rel=1e-12)


def test_figures_of_several_protocols_are_told_apart(judged: dict[str, tuple[Output, float]]) -> None:
    rows = collect([judged[year][0] for year in ("2020", "2021", "2024")])
    table = overview.overview(rows)
    assert table.header[:4] == ["system", "seed", "protocol", "all machines"]
    assert {line[2].text for line in table.rows} == {"dcase2020", "dcase2021", "dcase2023"}
    assert table.notes[-1] == "Figures of different protocols do not compare."
    for name, caption in (("dcase2020", OF_2020), ("dcase2021", OF_2021), ("dcase2023", OF_2023)):
        assert any(note.startswith(f"{name}: {caption}") for note in table.notes)


@pytest.mark.parametrize(
    ("year", "mean", "columns"),
    [
        ("2020", "arithmetic mean", ["AUC all", "pAUC"]),
        ("2021", "harmonic mean", ["AUC source", "AUC target", "AUC all", "pAUC", "pAUC source", "pAUC target"]),
        ("2022", "harmonic mean", ["AUC source", "AUC target", "AUC all", "pAUC"]),
    ],
)
def test_a_page_has_the_protocols_columns(
    judged: dict[str, tuple[Output, float]], year: str, mean: str, columns: list[str]
) -> None:
    output, expected = judged[year]
    (run,) = report.runs([output], [])
    section = certainty.metrics(run)
    (table,) = section.tables
    assert table.header == ["machine", *columns, mean, "95% interval", "baseline", "normal clips", "anomalies"]
    assert CAPTIONS[year] in table.notes[0]
    assert table.rows[-1][len(columns) + 1].text == f"{100 * expected:.2f}"
    counts = {cell.text for line in table.rows[:-1] for cell in line[-2:]}
    assert counts == ({"8"} if year == "2020" else {"8 + 8"} if year == "2021" else counts)
    assert all((" + " in count) == (year != "2020") for count in counts)


def test_the_report_is_true_of_all_of_them(judged: dict[str, tuple[Output, float]], tmp_path: Path) -> None:
    outputs = [judged[year][0] for year in CAPTIONS]
    written = report.write(outputs, None, [], str(tmp_path))
    rows = list(csv.DictReader(io.StringIO(store.read(written.files["overview_csv"]).decode())))
    assert sorted(row["protocol"] for row in rows) == ["dcase2020", "dcase2021", "dcase2023", "dcase2023"]
    for kind in ("markdown", "report"):
        text = store.read(written.files[kind]).decode()
        assert all(caption in text for caption in CAPTIONS.values())
