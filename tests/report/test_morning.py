"""The morning page and digest: who stands where, what is told first, that names stay names, and what it costs."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import mornings
from mornings import DAYS, LAST, ODD, OPEN, SENTENCE, SUSPECT
from ray_asd.fleet_tables import Morning
from ray_asd.report import morning as report
from ray_asd.report.morning import Options
from ray_asd.report.states import STATES, Standings

VOID = ("meta", "img", "br")
MAX_BYTES = 4_000_000


class Page(HTMLParser):
    """Tags by name, the text of each section, and that all tags are closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.section = "top"
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "section":
            self.section = str(found["id"])
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.handle_data(" " if tag in ("td", "th") else "")

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = self.sections.get(self.section, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Morning:
    return mornings.morning(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def page(full: Morning) -> Page:
    return Page(report.page(full))


def test_each_machine_has_one_state_and_the_urgent_come_first(full: Morning) -> None:
    found = Standings(full)
    states = {one.name: one.state for one in found.all}
    assert states == {
        f"fan 00 {ODD}": "alarming",
        "pump 00": "suspect",
        "fan 00 f2": "acknowledged",
        "valve 01 v1": "silent",
        "valve 01 v3": "unscored",
        "valve 01 v2": "learning",
        "fan 00 f3": "healthy",
        **{f"fan 00 h{one:03d}": "healthy" for one in range(3)},
    }
    order = list(STATES)
    places = [order.index(one.state) for one in found.all]
    assert places == sorted(places)
    assert [alert.alert_id for alert in found.resolved] == ["20261117-c"]
    alarming, suspect = found.all[:2]
    assert (alarming.sentence, suspect.sentence) == (SENTENCE, SENTENCE)
    assert found.all[2].sentence is None


def test_the_page_tells_all_of_it(page: Page) -> None:
    glance, alerts, trends, changes, missing = (
        " ".join(page.sections[name].split()) for name in ("fleet", "alerts", "trends", "changes", "missing")
    )
    for state in ("alarming", "suspect", "acknowledged", "silent", "unscored", "learning", "healthy"):
        assert f"{state}: {STATES[state]}" in glance  # type: ignore[index]
    assert "since 23 Nov" in glance
    assert alerts.index(f"1. fan 00 {ODD}") < alerts.index("2. pump 00") < alerts.index("3. fan 00 f2")
    assert alerts.count(SENTENCE) == 2
    assert "Nobody has listened to it yet." in alerts
    assert f"2026-11-20 09:00 by bob {ODD}: ordered {ODD}" in alerts
    assert re.search(r"fan 00 f3 false 2026-11-17 to 2026-11-18 2 4.0 noise above 2.0 kHz", alerts)
    assert "4 healthy machines" in trends
    assert changes.index("the whole fleet: the fleet is 6 dB louder. check the microphones") < changes.index(
        "its scores"
    )
    assert "40 taken, 3 files rejected, 2 not scored, 4 with the sound of another one" in changes
    assert "1 of the last 10 nights was not scored: 2026-11-20." in missing
    assert "valve 01 v1 last heard 2026-11-23" in missing
    assert "silent 3 all samples are equal" in missing
    assert "drill 00 2" in missing
    top = " ".join(page.sections["top"].split())
    assert "Night of 25 November 2026" in top
    assert "Revision 2, made 2026-11-26 00:50 UTC, scored by version v7. 7 of 9 machines could alarm alone" in top


def test_names_are_never_markup_and_nothing_is_asked_for(page: Page, full: Morning) -> None:
    assert not {"script", "iframe", "link", "form", "object"} & {tag for tag, _ in page.tags}
    places = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert all(str(place).startswith(("data:", "#m", "#")) for place in places)
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(place)[1:] for place in places if str(place).startswith("#")} <= anchors
    assert all(not any(name.startswith("on") for name in attributes) for _, attributes in page.tags)
    assert b"<script" not in report.page(full)


def test_alerts_can_be_looked_at_and_listened_to(page: Page, full: Morning) -> None:
    assert len(page.all("img")) == 6
    assert len(page.all("audio")) == 4, "each clip and the nearest to it"
    assert all(attributes["alt"] for attributes in page.all("img"))
    frames = [attributes for attributes in page.all("rect") if attributes.get("class") is None]
    assert [(frame["x"], frame["width"]) for frame in frames] == [("20.0", "40.0")] * 2
    low, high = (float(str(frames[place]["y"])) for place in (1, 0))
    assert high < low, "3.1 kHz is above 0.9 kHz"
    drawings = [attributes for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert len(drawings) == 10
    assert all(attributes["aria-label"] for attributes in drawings)
    assert not Page(report.page(full, Options(10, audio=False))).all("audio")
    assert not Page(report.page(full, Options(0))).all("img")


def test_recordings_that_are_gone_are_told_of() -> None:
    found = Page(report.page(mornings.morning()))
    assert found.all("img") == []
    assert found.sections["alerts"].count("No picture and no sound: the recording cannot be read any more") == 6


def test_a_great_fleet_fits_a_page(tmp_path: Path) -> None:
    many = report.page(mornings.morning(tmp_path, healthy=1000))
    assert len(many) < MAX_BYTES
    found = Page(many)
    assert len([attributes for attributes in found.all("svg") if attributes.get("role") == "img"]) == 400
    assert "607 more machines are not drawn" in found.sections["trends"]
    assert len([attributes for attributes in found.all("li") if str(attributes.get("class")).startswith("s-")]) == 1007


def test_a_quiet_night_says_so(full: Morning) -> None:
    calm = full.decisions.filter([row["machine_id"] in ("h000", "h001") for row in full.decisions.to_pylist()])
    empty = {
        name: getattr(full, name).slice(0, 0) for name in ("alerts", "why", "sounds", "drift", "rejects", "unscored")
    }
    quiet = replace(full, decisions=calm, silent={}, told={}, scored=frozenset(DAYS), counts={}, **empty)
    found = Page(report.page(quiet))
    assert "no alert is open, and no machine alarms" in found.sections["alerts"]
    assert "No drift was found" in found.sections["changes"]
    assert "Each of the last 10 nights was scored." in found.sections["missing"]
    assert report.digest(quiet) == [
        "night 2026-11-25, revision 2, scored by v7",
        "  2 machines: 2 healthy",
        "alerts that are open: 0",
        "recordings: 0 taken",
    ]


def test_the_digest_tells_the_most_important_first(full: Morning) -> None:
    lines = report.digest(full)
    text = "\n".join(lines)
    assert lines[:6] == [
        "night 2026-11-25, revision 2, scored by v7",
        "  10 machines: 1 alarming, 1 suspect, 1 acknowledged, 1 silent, 1 unscored, 1 learning, 4 healthy",
        "  7 of 9 machines could alarm alone",
        "alerts that are open: 1",
        f"  fan 00 {ODD}: since 2026-11-23, 2 nights, severity 5.5: {SENTENCE}",
        "alarms, no alert yet: 1",
    ]
    assert "  fan 00 f2: since 2026-11-21, 2 nights, severity 4.5: nobody has listened to it" in lines
    assert "  the whole fleet: the fleet is 6 dB louder; check the microphones" in lines
    assert text.endswith("nights that were not scored, of the last 10: 1 (2026-11-20)")


def test_the_digest_stays_short_and_plain() -> None:
    """However many machines there are, and whatever they are called."""
    found = mornings.morning(healthy=0)
    escape = "\x1b[2Jx\n"
    silent = {("fan", "00", f"s{one} {escape}"): LAST for one in range(100)}
    lines = report.digest(replace(found, silent=silent))
    assert len(lines) <= 34
    assert "  and 97 more" in lines
    assert all(line.isprintable() for line in lines)


def test_a_machine_keeps_the_sentence_of_its_alert(full: Morning) -> None:
    """What is heard in another clip does not replace it, and is not shown for it."""
    rows = full.why.to_pylist()
    later = {**rows[0], "clip_id": "plant/other.wav", "sentence": "something else"}
    both = full.why.from_pylist([*rows, later], schema=full.why.schema)
    by_machine = {one.machine: one for one in Standings(replace(full, why=both)).all}
    assert by_machine[OPEN].sentence == SENTENCE
    assert by_machine[OPEN].why == rows[0]
    assert by_machine[SUSPECT].why == rows[1]
