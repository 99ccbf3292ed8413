"""The whole report: what is written, what the page holds, and where its figures lead."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from made_up import BASELINE, compared, evaluated, recipe, scored, scores
from ray_asd import report, store
from ray_asd.build import Output
from ray_asd.errors import UserError
from ray_asd.report import Failure, Written
from ray_asd.report.figures import layer_weights
from ray_asd.report.rows import Origin, Parts, Row, collect

NAME = """ [<script>alert("1")</script> & 'co']"""
WEIGHTS = [0.1, 0.3, 0.6]
FAILURES = [Failure("wavlm+WS", 0, "/no/folder: no config.json")]


class Page(HTMLParser):
    """Checks that elements nest, and collects tags, table cells and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links |= {value for name, value in attrs if tag == "a" and name == "href" and value}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells.append(data)


def run(root: str) -> tuple[list[Output], Output]:
    """Two systems, one with a name that no page should take for markup, and the baseline; METRICS and comparison."""
    baseline = scored(root, None, scores(50, 0.3))
    plain, full = recipe("hubert", ws=True), recipe("hubert", ws=True, sa=True)
    one = scored(root, plain, scores(1, 0.5), weights=WEIGHTS)
    other = scored(root, full, scores(2, 0.9), weights=WEIGHTS[::-1])
    outputs = [evaluated(root, one, baseline), evaluated(root, other, baseline, NAME)]
    found = [(BASELINE, None, baseline), (plain.system, 0, one), (full.system + NAME, 0, other)]
    return outputs, compared(root, found)


def write(root: str, place: str) -> tuple[Written, list[Output], Output]:
    outputs, comparison = run(root)
    return report.write(outputs, comparison, FAILURES, f"{place}/report"), outputs, comparison


def read(written: Written, kind: str) -> str:
    return store.read(written.files[kind]).decode()


def test_all_files_are_written_and_can_be_traced(tmp_path_factory: pytest.TempPathFactory, root: str) -> None:
    written, outputs, comparison = write(str(tmp_path_factory.mktemp("root")), root)
    names = ["report.html", "report.md", "table1.csv", "table1.tex", "pairs.csv", "layer_weights.svg"]
    names += ["overview.csv", "costs.csv"]
    assert sorted(written.files.values()) == sorted(f"{root}/report/{name}" for name in names)
    records = list(csv.DictReader(io.StringIO(read(written, "table1_csv"))))
    rows = {row.system: row for row in collect(outputs)}
    for record in records:
        row = rows[record["system"]]
        assert float(record["all_machines"]) == pytest.approx(row.score, abs=1e-12)
        assert float(record["fan"]) == row.machines["fan"]
        assert store.exists(record["uri"])
    for record in csv.DictReader(io.StringIO(read(written, "overview_csv"))):
        assert float(record["all_machines"]) == rows[record["system"]].score
        assert store.exists(record["uri"])
    costs = list(csv.DictReader(io.StringIO(read(written, "costs_csv"))))
    assert {cost["stage"] for cost in costs} == {"train", "embed", "enroll", "score"}
    assert all(store.exists(cost["uri"]) for cost in costs)
    pairs = list(csv.DictReader(io.StringIO(read(written, "pairs"))))
    assert [(pair["system_a"], pair["system_b"]) for pair in pairs] == [
        (BASELINE, "hubert+WS"),
        (BASELINE, f"hubert+WS+SA{NAME}"),
        ("hubert+WS", f"hubert+WS+SA{NAME}"),
    ]
    assert r"\begin{tabular}{lrrr}" in read(written, "table1_tex")
    text = read(written, "markdown")
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles == [
        "Table 1",
        "Effect of each part",
        "Differences between any two systems",
        "The paper's Table 1, of other recordings",
        "Cells that failed",
        "Comparison of systems",
        "What it took",
    ]
    assert "| wavlm+WS | 0    | /no/folder: no config.json |" in text
    assert written.table in text
    page = Page(read(written, "report"))
    assert {f"file://{output.uri}" for output in (*outputs, comparison)} <= page.links


def test_the_page_stands_alone_and_shows_names_as_text(tmp_path: object) -> None:
    written, *_ = write(str(tmp_path), str(tmp_path))
    text = read(written, "report")
    page = Page(text)
    assert f"hubert+WS+SA{NAME}" in page.cells
    assert not {"script", "link", "img", "iframe", "object"} & page.seen
    assert not re.search(r"""(?:src|srcset|action)=|url\((?!#)|@import""", text.replace("xlink:href", ""))
    assert "<svg" in text


def test_dollars_in_a_systems_name_are_no_formula() -> None:
    origin = Origin(Parts("backbone", "hubert", True, False, False), WEIGHTS, {}, None, scores=None)  # type: ignore[arg-type]
    drawn = layer_weights([Row("hubert+WS (/mnt/$x_$\\frac{/$)", 0, 0.5, 0.4, 0.6, None, {}, "uri", origin)])
    assert drawn is not None
    assert "(/mnt/$x_$\\frac{/$)" in drawn.decode()


def test_layer_weights_are_drawn_the_same_each_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    drawn = [read(write(str(root), str(root))[0], "layer_weights") for root in map(tmp_path_factory.mktemp, "ab")]
    assert drawn[0] == drawn[1]
    assert "hubert+WS" in drawn[0]
    assert "without SA" in drawn[0]
    assert "with SA" in drawn[0]


def test_other_runs_of_the_same_systems_stay_out_of_the_table(tmp_path: object) -> None:
    """They share the baseline, clips and names with those that were compared."""
    root = str(tmp_path)
    outputs, comparison = run(root)
    older = evaluated(
        root, scored(root, recipe("hubert", ws=True), scores(7, 0.1)), scored(root, None, scores(50, 0.3))
    )
    both = report.write([older, *outputs], comparison, [], f"{root}/both")
    alone = report.write(outputs, comparison, [], f"{root}/alone")
    assert read(both, "table1_csv") == read(alone, "table1_csv")
    assert both.table == alone.table
    assert len(read(both, "markdown")) > len(read(alone, "markdown"))


def test_without_a_comparison_there_is_the_overview(tmp_path: object) -> None:
    outputs, _ = run(str(tmp_path))
    written = report.write(outputs, None, [], f"{tmp_path}/report")
    assert sorted(written.files) == ["costs_csv", "layer_weights", "markdown", "overview_csv", "report"]
    assert written.table == report.overview_of(outputs)


def test_nothing_to_report_on_is_refused_but_failures_are_something(tmp_path: object) -> None:
    with pytest.raises(UserError, match=r"^no METRICS to report on; run `ray-asd evaluate` first$"):
        report.write([], None, [], str(tmp_path))
    written = report.write([], None, FAILURES, str(tmp_path))
    assert "no config.json" in read(written, "report")
    assert str(FAILURES[0]) == "wavlm+WS seed 0: /no/folder: no config.json"
