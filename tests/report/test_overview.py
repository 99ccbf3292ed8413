"""The overview of METRICS whose figures can be told without a computer, and what each system took."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from markupsafe import escape

from ray_asd import build, report, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.errors import UserError
from ray_asd.report import overview
from ray_asd.report.overview import costs
from ray_asd.report.rows import Origin, Row, collect
from ray_asd.report.table import markdown
from ray_asd.scoring import bootstrap, metrics

BASELINE = "baseline (log-mel mean and std)"
PERFECT = (0.1, 0.9)  # the score of every normal clip, and of every anomaly: each AUC is 1
USELESS = (0.5, 0.5)  # each AUC is 1/2


def scores(sections: dict[str, tuple[float, float]], domains: tuple[str, ...] = tables.DOMAINS) -> pa.Table:
    """SCORES of sections ``machine/section`` with two normal clips and two anomalies in each of the domains."""
    rows = [
        {"machine_type": name.split("/")[0], "section": name.split("/")[1], "domain": domain, "label": label}
        | {"score": score[tables.LABELS.index(label)], "decision": None, "clip_id": f"{name}/{domain}/{number}"}
        for name, score in sections.items()
        for domain in domains
        for number, label in enumerate(tables.LABELS * 2)
    ]
    schema = pa.schema([tables.SCORES.field(name) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema=schema)


def evaluated(root: str, *systems: tuple[str, int | None, pa.Table]) -> Output:
    """A committed METRICS table of these systems, seeds and scores."""

    def work(attempt: Attempt) -> Outcome:
        parts, summaries = [], []
        for system, seed, table in systems:
            figures = metrics.evaluate(table, system, seed)
            parts.append(figures)
            summaries.append({"system": system, "seed": seed})
            try:
                low, high = bootstrap.interval(table, 20)
                summaries[-1] |= {"score": metrics.official_score(figures), "low": low, "high": high}
            except UserError as error:
                summaries[-1] |= {"score": None, "why": str(error)}
        file = attempt.put_table("metrics/00000.parquet", pa.concat_tables(parts))
        return Outcome([file], {"systems": len(systems)}, {"systems": summaries})

    config = {"systems": [[system, seed, table.to_pylist()] for system, seed, table in systems]}
    return build.run(root, Key("evaluate", "test", 1, config, {}), work)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("root"))


def cells(text: str) -> list[list[str]]:
    """The table of a Markdown text: header first, the rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_best_system_comes_first_and_the_floor_is_among_them(place: str) -> None:
    output = evaluated(
        place,
        (BASELINE, None, scores({"fan/00": USELESS, "valve/00": USELESS})),
        ("mine", 0, scores({"valve/00": USELESS, "fan/00": PERFECT})),
    )
    text = report.overview_of([output])
    header, *rows = cells(text)
    assert header == ["system", "seed", "all machines", "fan", "valve"]
    assert [row[:2] for row in rows] == [["mine", "0"], [BASELINE, "-"]]
    assert [row[2].split()[0] for row in rows] == ["66.67", "50.00"]  # 6 / (3 / 1 + 3 / 0.5)
    assert [row[3:] for row in rows] == [["100.00", "50.00"], ["50.00", "50.00"]]
    assert rows[1][2] == "50.00 [50.00, 50.00]"
    assert "95% bootstrap interval" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1, "it reads as text too"


def test_a_machine_type_is_the_harmonic_mean_of_its_sections(place: str) -> None:
    output = evaluated(place, ("mine", 0, scores({"fan/00": PERFECT, "fan/01": USELESS})))
    assert cells(report.overview_of([output]))[1][3] == "66.67"


def test_figures_are_rounded_once() -> None:
    row = Row("mine", 1, 0.876549, 0.1, 0.99999, None, {"fan": 0.123456, "valve": None}, "uri")
    assert overview.cells(row, ["fan", "gearbox", "valve"]) == ["mine", "1", "87.65 [10.00, 100.00]", "12.35", "-", "-"]


def test_each_seed_has_its_row_and_a_repeated_row_is_shown_once(place: str) -> None:
    first = evaluated(place, *((("mine", seed, scores({"fan/00": PERFECT}))) for seed in (1, 0)))
    baseline = (BASELINE, None, scores({"fan/00": USELESS}))
    second = evaluated(place, ("mine", 0, scores({"fan/00": PERFECT})), baseline)
    changed = evaluated(place, ("mine", 0, scores({"fan/00": USELESS})), baseline)
    found = [(row.system, row.seed, row.score) for row in collect([first, second, changed])]
    assert found == [("mine", 0, 1.0), ("mine", 1, 1.0), (BASELINE, None, 0.5), ("mine", 0, 0.5)]


def test_a_system_without_an_all_machine_figure_says_why(place: str) -> None:
    table = scores({"fan/00": PERFECT})
    no_target = table.filter((pc.field("domain") == "source") | (pc.field("label") == "anomaly"))
    output = evaluated(place, ("mine", 0, no_target), (BASELINE, None, table))
    text = report.overview_of([output])
    assert cells(text)[2] == ["mine", "0", "-", "-"]
    assert "mine: no all-machine figure: fan section 00 has no auc_target, which the official score needs" in text


def test_data_without_domains_has_figures_too(place: str) -> None:
    table = scores({"fan/00": PERFECT}, domains=("source",))
    table = table.set_column(2, table.schema.field("domain"), pa.nulls(table.num_rows, pa.string()))
    assert cells(report.overview_of([evaluated(place, ("mine", 0, table))]))[1][3] == "100.00"


def test_a_bar_in_a_name_does_not_break_the_table(place: str) -> None:
    output = evaluated(place, ("a|b", 0, scores({"fan/00": PERFECT})))
    assert cells(report.overview_of([output]))[1][:2] == [r"a\|b", "0"]


def test_a_machine_type_that_is_called_as_a_column_hides_none(place: str) -> None:
    names = ("seed", "uri", "all_machines", "fan")
    output = evaluated(place, ("mine", 7, scores({f"{name}/00": PERFECT for name in names})))
    (record,) = overview.values(collect([output]))
    assert (record["system"], record["seed"], record["uri"]) == ("mine", 7, output.uri)
    assert [record[f"machine {name}"] for name in names[:3]] == [1.0, 1.0, 1.0]
    assert record["fan"] == 1.0


def test_systems_whose_names_have_the_same_letters_have_pages_of_their_own(place: str) -> None:
    """Of one METRICS table: folders of a submission, and names that begin with the same 48 letters."""
    names = ["a/one", "a-one", "A one", "a\none", "é" * 60 + "1", "é" * 60 + "2", "..", "/", "<b>"]
    table = scores({"fan/00": PERFECT})
    output = evaluated(place, *((name, 0, table) for name in names))
    pages = report.pages(report.runs([output], []), f"{place}/report", report.Options(), lambda *said: None)
    assert sorted(page.run.system for page in pages) == sorted(names)
    assert len({page.href for page in pages}) == len(names)
    for page in pages:
        assert f"<h1>{escape(page.run.system)}</h1>" in store.read(f"{place}/report/{page.href}").decode()


def test_costs_add_up_all_stages_and_count_shared_ones_once(place: str) -> None:
    marker = evaluated(place, ("mine", 0, scores({"fan/00": PERFECT}))).marker
    shared = marker.model_copy(update={"seconds": 1800.0, "held": build.Held(cpus=4, gpus=2)})
    own = marker.model_copy(update={"seconds": 3600.0, "held": build.Held(cpus=1)})
    stages = {name: {"/shared": shared, f"/{name}": own} for name in ("one", "other")}
    origins = {name: Origin(None, None, found, None, scores=None) for name, found in stages.items()}
    rows = [Row(name, 0, 0.5, 0.4, 0.6, None, {}, "uri", origin) for name, origin in origins.items()]
    found = cells(markdown(costs(rows)))
    assert found[0] == ["system", "seed", "stages", "seconds", "CPU-hours", "GPU-hours"]
    assert found[1:] == [
        ["one", "0", "2", "5400", "3.000", "1.000"],
        ["other", "0", "2", "5400", "3.000", "1.000"],
        ["all of it, shared stages once", "", "3", "9000", "4.000", "1.000"],
    ]
