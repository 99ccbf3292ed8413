"""The page about a run: what it shows, that each of its figures stands in a file it names, and what it does without."""

import csv
import io
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from made_up import BASELINE, Plant, plant
from ray_asd import report, store
from ray_asd.report import Options
from ray_asd.report.page import Page

NAME = """ <script>alert("1")</script> & 'co'"""
MAX_BYTES = 5_000_000  # of a page
VOID = ("meta", "img", "br")
NO_FIGURE = re.compile(r"\(.*?\)|< 0.1%|\b([0-9a-f]{8}|[0-9a-f]{12})\b")  # the first letters of a digest may be digits


class Read(HTMLParser):
    """The page by section: its figures, and the places that it names for them; and all tags and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.section = "top"
        self.cells: dict[str, list[str]] = {}
        self.sources: dict[str, list[str]] = {}
        self.figures: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = str(dict(attrs)["id"])
        if tag == "td" or (self.section == "clips" and tag in ("dd", "figcaption")):
            self.cells.setdefault(self.section, []).append("")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "dd":
            self.figures.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or (self.section == "clips" and {"dd", "figcaption"} & set(self.open)):
            self.cells[self.section][-1] += data
        if "details" in self.open and "li" in self.open and data.strip():
            self.sources.setdefault(self.section, []).append(data.strip())
        if "dd" in self.open and self.section == "top":
            self.figures[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(made: Plant, out: str, **options: object) -> list[Page]:
    metrics = [made.metrics] if made.metrics != made.scores else []
    return report.pages(report.runs(metrics, [made.scores]), out, Options(**options), lambda *said: None)


def read(out: str, page: Page) -> Read:
    return Read(store.read(f"{out}/{page.href}").decode())


def records(out: str, page: Page, name: str) -> list[dict[str, str]]:
    text = store.read(f"{out}/runs/{page.run.name}/{name}").decode()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, str, list[Page]]:
    """A plant with its report on disk."""
    folder = tmp_path_factory.mktemp("plant")
    found = plant(str(folder / "runs"), str(folder / "recordings"))
    return found, str(folder / "report"), write(found, str(folder / "report"))


def test_there_is_a_page_for_the_system_and_one_for_the_floor(made: tuple[Plant, str, list[Page]]) -> None:
    _, out, pages = made
    assert [page.line for page in pages] == [
        ["hubert+WS", "0", "fan 00", "12", "48"],
        [BASELINE, "-", "none", "0", "48"],
    ]
    for page in pages:
        text = store.read(f"{out}/{page.href.replace('.html', '.md')}").decode()
        assert text.startswith(f"# {page.run.system}")
        assert "| fan 00" in text


def test_the_answers_come_first(made: tuple[Plant, str, list[Page]]) -> None:
    _, out, pages = made
    page = read(out, pages[0])
    sections = [str(attributes["id"]) for attributes in page.all("section")]
    assert sections == ["machines", "clips", "certainty", "scores", "roc", "training", "recordings", "provenance"]
    assert page.figures[:4] == ["1 of 2", "fan 00", "12 of 48 clips", "4.8 if all machines are healthy"]
    assert page.cells["machines"][:6] == ["fan 00", "sounds wrong", "12", "2.4", "24", "50%"]
    assert page.cells["machines"][6] == "< 0.1%"
    assert page.cells["machines"][7:13] == ["valve 00", "as expected", "0", "2.4", "24", "0%"]
    limit = ["fan 00", "0.2", "10.0%", "4.5% to 17.0%", "5 of 59", "6%", "40%", "calibration"]
    assert page.cells["machines"][21:29] == limit
    assert "Benjamini and Hochberg over the machines of this run" in page.text
    assert "1 of 2: fan 00." in page.text
    assert "60 clips were taken, 3 files were not." in page.text
    assert page.cells["recordings"][-10:-8] == ["truncated", "2"]


def numbers(text: str) -> list[tuple[float, float]]:
    """The numbers in a text and half a unit of their last digits, as shares where they are in percent."""
    found = []
    for number, exponent, sign in re.findall(r"(?<![\w.-])(-?\d+(?:\.\d+)?)(e[+-]\d+)?(%?)(?![\w-])", text):
        scale = float("1" + exponent) * (0.01 if sign else 1)
        digits = len(number.partition(".")[2])
        found.append((float(number) * scale, 0.5001 * 10**-digits * scale))
    return found


def known(out: str, page: Page, files: list[str]) -> list[float]:
    texts = [value for name in files for row in records(out, page, name) for value in row.values()]
    found = [number for text in texts for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)]
    return [float(number) for number in found]


def test_every_number_in_a_table_or_on_top_stands_in_a_file_that_the_page_names(
    made: tuple[Plant, str, list[Page]],
) -> None:
    _, out, pages = made
    checked = 0
    for page in pages:
        shown = read(out, page)
        by_section = {
            section: [name.strip() for name in sources if name.endswith(".csv")]
            for section, sources in shown.sources.items()
        }
        everything = sorted({name for names in by_section.values() for name in names})
        cells = {**shown.cells, "top": shown.figures}
        for section, texts in cells.items():
            values = known(out, page, by_section.get(section, everything))
            for value, margin in [number for text in texts for number in numbers(NO_FIGURE.sub("", text))]:
                near = [v for v in values for v in (v, 100 * v) if math.isclose(v, value, abs_tol=margin)]
                fits = near or (section, value) == ("top", 50.0)  # chance
                assert fits, (page.run.system, section, value)
                checked += 1
    assert checked > 100


def test_every_place_that_a_page_names_is_there(made: tuple[Plant, str, list[Page]]) -> None:
    _, out, pages = made
    for page in pages:
        shown = read(out, page)
        assert set(shown.sources) == {str(attributes["id"]) for attributes in shown.all("section")}
        for source in [source for sources in shown.sources.values() for source in sources]:
            place = f"{out}/runs/{page.run.name}/{source}" if source.endswith(".csv") else source
            assert source.startswith("the same figures") or store.exists(place), source
        for link in [str(attributes["href"]) for attributes in shown.all("a")]:
            relative = not link.startswith(("#", "file://", "../report.html"))
            assert not relative or store.exists(f"{out}/runs/{link}"), link


def test_the_page_stands_alone(made: tuple[Plant, str, list[Page]]) -> None:
    _, out, pages = made
    for page in pages:
        shown = read(out, page)
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in shown.tags}
        policy = next(a["content"] for a in shown.all("meta") if "Content-Security-Policy" in a.values())
        assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
        assert all(str(a["src"]).startswith("data:image/jpeg;") and a["alt"] for a in shown.all("img"))
        assert all(str(a["src"]).startswith("data:audio/mpeg;") for a in shown.all("audio"))
        assert not re.search(r"url\(|@import", store.read(f"{out}/{page.href}").decode())


def test_the_most_anomalous_clips_stand_beside_their_neighbours(made: tuple[Plant, str, list[Page]]) -> None:
    _, out, pages = made
    rows = records(out, pages[0], "clips.csv")
    assert [row["clip_id"] for row in rows] == [f"plant/fan/test/{number}" for number in (23, 21, 19, 17, 15)]
    assert {row["neighbours"] for row in rows} == {"plant/fan/train/0 plant/fan/train/1"}
    shown = read(out, pages[0])
    assert len(shown.all("img")) == 15
    assert len(shown.all("audio")) == 10
    assert "A normal neighbour at distance" in shown.text
    assert "No picture" not in shown.text


def test_ten_clips_have_ten_players_and_stay_small(made: tuple[Plant, str, list[Page]], tmp_path: Path) -> None:
    pages = write(made[0], str(tmp_path), clips=10)
    assert len(read(str(tmp_path), pages[0]).all("audio")) == 10
    assert len(store.read(f"{tmp_path}/{pages[0].href}")) < MAX_BYTES
    silent = write(made[0], str(tmp_path), audio=False)
    shown = read(str(tmp_path), silent[0])
    assert (len(shown.all("audio")), len(shown.all("img"))) == (0, 15)
    without = write(made[0], str(tmp_path), clips=0)
    assert "clips" not in {attributes["id"] for attributes in read(str(tmp_path), without[0]).all("section")}


def test_a_recording_that_is_gone_or_another_by_now_is_told_of(tmp_path: Path) -> None:
    found = plant(str(tmp_path / "runs"), str(tmp_path / "recordings"))
    (tmp_path / "recordings/fan/test/23.wav").unlink()
    (tmp_path / "recordings/fan/test/21.wav").write_bytes(b"RIFF")
    shown = read(str(tmp_path), write(found, str(tmp_path), clips=3)[0])
    assert shown.text.count("No picture and no sound: the recording cannot be read any more:") == 1
    assert shown.text.count("the recording has changed since it was ingested") == 1
    assert len(shown.all("img")) == 7


def test_without_labels_there_are_verdicts_but_no_figures(tmp_path: Path) -> None:
    found = plant(str(tmp_path / "runs"), str(tmp_path / "recordings"), labels=False)
    (page,) = write(found, str(tmp_path))
    shown = read(str(tmp_path), page)
    sections = [attributes["id"] for attributes in shown.all("section")]
    assert sections == ["machines", "clips", "scores", "training", "recordings", "provenance"]
    assert "no labels are known" in shown.text
    assert {row["label"] for row in records(str(tmp_path), page, "histograms.csv")} == {"unlabelled"}
    written = report.write([], None, [], str(tmp_path), [page])
    assert "| hubert+WS | 0    | fan 00" in written.table


def test_without_thresholds_the_page_says_so_and_still_ranks(tmp_path: Path) -> None:
    found = plant(str(tmp_path / "runs"), str(tmp_path / "recordings"), thresholds=False)
    page = write(found, str(tmp_path))[0]
    shown = read(str(tmp_path), page)
    assert page.line == ["hubert+WS", "0", "-", "-", "48"]
    assert "There is no threshold: scores can be ranked" in shown.text
    assert shown.cells["machines"][1:4] == ["no threshold", "-", "-"]
    limit = ["fan 00", "-", "10.0%", "-", "-", "-", "-", "none: all were trained on"]
    assert shown.cells["machines"][21:29] == limit
    assert len(records(str(tmp_path), page, "clips.csv")) == 5


def test_names_are_shown_as_text_and_pages_lie_in_object_stores_too(root: str) -> None:
    found = plant(f"{root}/runs", f"{root}/recordings", name=NAME)
    pages = write(found, f"{root}/report")
    shown = read(f"{root}/report", pages[0])
    assert f"hubert+WS{NAME}" in shown.text
    assert "script" not in {tag for tag, _ in shown.tags}
    assert "<script" not in store.read(f"{root}/report/{pages[0].href.replace('.html', '.md')}").decode()
    assert re.fullmatch(r"runs/hubert-ws-script-alert-1-script-co-seed0-[0-9a-f]{8}\.html", pages[0].href)
    written = report.write([found.metrics], None, [], f"{root}/report", pages)
    comparison = Read(store.read(written.files["report"]).decode().replace("<section>", '<section id="one">'))
    assert {page.href for page in pages} <= {str(attributes["href"]) for attributes in comparison.all("a")}


def test_what_was_removed_is_missed_but_the_rest_is_shown(tmp_path: Path) -> None:
    found = plant(str(tmp_path / "runs"), str(tmp_path / "recordings"))
    for stage in ("train", "ingest"):
        shutil.rmtree(tmp_path / "runs" / stage)
    page = write(found, str(tmp_path))[0]
    shown = read(str(tmp_path), page)
    assert page.line == ["hubert+WS", "0", "fan 00", "12", "48"]
    assert not page.run.is_baseline
    assert shown.text.count("the table of recordings is no longer there") == 15
    shutil.rmtree(tmp_path / "runs" / "score")
    runs = report.runs([found.metrics], [])
    (bare,) = [page for page in report.pages(runs, str(tmp_path), Options(), lambda *said: None) if page.run.seed == 0]
    sections = [attributes["id"] for attributes in read(str(tmp_path), bare).all("section")]
    assert sections == ["certainty", "provenance"]
    assert bare.line == ["hubert+WS", "0", "-", "-", "-"]
