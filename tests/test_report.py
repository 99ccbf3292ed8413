"""The comparison table, made from METRICS whose figures can be told without a computer."""

import re
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ray_asd import build, report, storage, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.errors import UserError
from ray_asd.report import Row
from ray_asd.scoring import bootstrap, metrics

FLOOR = "floor (log-mel mean and std)"
PERFECT = (0.1, 0.9)  # the score of every normal clip, and of every anomaly: each AUC is 1
USELESS = (0.5, 0.5)  # each AUC is 1/2


def scores(sections: dict[str, tuple[float, float]], domains: tuple[str, ...] = tables.DOMAINS) -> pa.Table:
    """SCORES of sections ``machine/section`` with two normal clips and two anomalies in each of the domains."""
    rows = [
        {"machine_type": name.split("/")[0], "section": name.split("/")[1], "domain": domain, "label": label}
        | {"score": score[tables.LABELS.index(label)], "decision": None}
        for name, score in sections.items()
        for domain in domains
        for label in tables.LABELS * 2
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
        (FLOOR, None, scores({"fan/00": USELESS, "valve/00": USELESS})),
        ("mine", 0, scores({"valve/00": USELESS, "fan/00": PERFECT})),
    )
    text = report.markdown(report.collect([output]))
    header, *rows = cells(text)
    assert header == ["system", "seed", "all machines", "fan", "valve"]
    assert [row[:2] for row in rows] == [["mine", "0"], [FLOOR, "-"]]
    assert [row[2].split()[0] for row in rows] == ["66.67", "50.00"]  # 6 / (3 / 1 + 3 / 0.5)
    assert [row[3:] for row in rows] == [["100.00", "50.00"], ["50.00", "50.00"]]
    assert rows[1][2] == "50.00 [50.00, 50.00]"
    assert "95% bootstrap interval" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1, "it reads as text too"


def test_a_machine_type_is_the_harmonic_mean_of_its_sections(place: str) -> None:
    output = evaluated(place, ("mine", 0, scores({"fan/00": PERFECT, "fan/01": USELESS})))
    assert cells(report.markdown(report.collect([output])))[1][3] == "66.67"


def test_figures_are_rounded_once() -> None:
    row = Row("mine", 1, 0.876549, 0.1, 0.99999, None, {"fan": 0.123456, "valve": None}, "uri")
    assert row.cells(["fan", "gearbox", "valve"]) == ["mine", "1", "87.65 [10.00, 100.00]", "12.35", "-", "-"]


def test_each_seed_has_its_row_and_a_repeated_row_is_shown_once(place: str) -> None:
    first = evaluated(place, *((("mine", seed, scores({"fan/00": PERFECT}))) for seed in (1, 0)))
    floor = (FLOOR, None, scores({"fan/00": USELESS}))
    second = evaluated(place, ("mine", 0, scores({"fan/00": PERFECT})), floor)
    changed = evaluated(place, ("mine", 0, scores({"fan/00": USELESS})), floor)
    found = [(row.system, row.seed, row.score) for row in report.collect([first, second, changed])]
    assert found == [("mine", 0, 1.0), ("mine", 1, 1.0), (FLOOR, None, 0.5), ("mine", 0, 0.5)]


def test_a_system_without_an_all_machine_figure_says_why(place: str) -> None:
    table = scores({"fan/00": PERFECT})
    no_target = table.filter((pc.field("domain") == "source") | (pc.field("label") == "anomaly"))
    output = evaluated(place, ("mine", 0, no_target), (FLOOR, None, table))
    rows = report.collect([output])
    text = report.markdown(rows)
    assert cells(text)[2] == ["mine", "0", "-", "-"]
    why = "mine: no all-machine figure: fan section 00 has no auc_target, which the official score needs"
    assert why in text
    assert why in report.html(rows)


def test_data_without_domains_has_figures_too(place: str) -> None:
    table = scores({"fan/00": PERFECT}, domains=("source",))
    table = table.set_column(2, table.schema.field("domain"), pa.nulls(table.num_rows, pa.string()))
    assert cells(report.markdown(report.collect([evaluated(place, ("mine", 0, table))])))[1][3] == "100.00"


class Page(HTMLParser):
    """Checks that elements nest, and collects text, elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.names: set[str] = set()
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.names |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_is_well_formed_stands_alone_and_shows_names_as_text(place: str) -> None:
    name = """<script>alert("1")</script> & 'co'"""
    output = evaluated(place, (name, 0, scores({"fan/00": PERFECT})), (FLOOR, None, scores({"fan/00": USELESS})))
    rows = report.collect([output])
    text = report.html(rows)
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.cells == [name, "0", "100.00 [100.00, 100.00]", "100.00", FLOOR, "-", "50.00 [50.00, 50.00]", "50.00"]
    assert not {"script", "link", "img", "iframe", "object"} & set(page.seen)
    assert not {"src", "href", "srcset", "action"} & page.names
    assert not re.search(r"https?:|url\(|@import", text)
    assert text.count(output.uri) == 4  # each row's title and its line below


def test_a_bar_in_a_name_does_not_break_the_table(place: str) -> None:
    output = evaluated(place, ("a|b", 0, scores({"fan/00": PERFECT})))
    assert cells(report.markdown(report.collect([output])))[1][:2] == [r"a\|b", "0"]


def test_everything_below_a_root_is_written_as_markdown_and_as_a_page(root: str) -> None:
    evaluated(root, ("mine", 0, scores({"fan/00": PERFECT})))
    evaluated(root, ("other", 0, scores({"valve/00": USELESS})))
    markdown, page = report.write(root, f"{root}/report")
    assert (markdown, page) == (f"{root}/report/report.md", f"{root}/report/report.html")
    text = storage.read(markdown).decode()
    assert [row[0] for row in cells(text)] == ["system", "mine", "other"]
    assert [row[3:] for row in cells(text)] == [["fan", "valve"], ["100.00", "-"], ["-", "50.00"]]
    assert b"<td>other</td>" in storage.read(page)


def test_a_root_without_metrics_is_refused(root: str) -> None:
    with pytest.raises(UserError, match="holds no METRICS; run `ray-asd evaluate` first"):
        report.write(root, f"{root}/report")
