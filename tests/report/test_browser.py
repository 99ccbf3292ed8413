"""The report in a real browser, at phone and desktop width, in light and dark: nothing missing, nothing asked for."""

import re
from pathlib import Path

import pytest

import browser
import mornings
from made_up import plant
from ray_asd import report
from ray_asd.report import morning
from test_report import FAILURES, run

PROGRAM = browser.find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser; looked for {', '.join(browser.NAMES)}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The comparison, a page with everything, one about unlabelled recordings of which one is gone, a great morning."""
    folder = tmp_path_factory.mktemp("report")
    full = plant(str(folder / "runs"), str(folder / "recordings"))
    bare = plant(str(folder / "bare"), str(folder / "others"), labels=False, name="-" + "x" * 200, thresholds=False)
    (folder / "others/fan/test/23.wav").unlink()
    found = report.runs([full.metrics], [full.scores, bare.scores])
    written = report.pages(found, str(folder), report.Options(), lambda *said: None)
    systems, comparison = run(str(folder / "sweep"))
    report.write([full.metrics, *systems], comparison, FAILURES, str(folder), written)
    places = {"comparison": folder / "report.html", "full": folder / written[0].href, "bare": folder / written[2].href}
    places["morning"] = folder / "morning.html"
    places["morning"].write_bytes(morning.page(mornings.morning(folder, healthy=200)))
    assert all(place.exists() for place in places.values())
    return places


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("name", ["comparison", "full", "bare", "morning"])
def test_a_reader_sees_all_of_it(pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    seen = browser.look(str(PROGRAM), pages[name], width, scheme)
    page = seen.page
    assert page["inner"] == width
    assert page["scroll"] <= width
    assert page["sticking_out"] == []
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [pages[name].as_uri()]
    for kind in ("images", "drawings", "sounds"):
        assert all(is_shown and told for is_shown, told in page[kind]), kind
    assert all(page["tables"]), "each table has its caption"
    if name == "full":
        assert (len(page["images"]), len(page["sounds"])) == (15, 10)
        assert len(page["drawings"]) > 8
    assert len(page["colours"]) > 2
    assert [pair for pair in page["colours"] if contrast(*pair.split(" on ")) < 4.5] == []
    assert (lightness(page["background"]) < 0.5) == (scheme == "dark")


def lightness(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of ``rgb(r, g, b)``."""
    shares = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted([lightness(one), lightness(other)])
    return (light + 0.05) / (dark + 0.05)


def test_the_look_finds_what_is_wrong(tmp_path: Path) -> None:
    """A broken page, so that the test above can fail."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><title>x</title>"
        "<div style='width: 2000px'>wide</div><img src='data:image/png;base64,AAAA' alt='x'>"
        "<audio src='data:audio/mpeg;base64,AAAA' aria-label='x'></audio><table><tr><td>1</td></tr></table>"
        "<img src='http://127.0.0.1:9/x.png' alt='y'><script>console.error('no')</script>"
    )
    seen = browser.look(str(PROGRAM), broken, 390, "light")
    assert seen.page["sticking_out"]
    assert seen.page["scroll"] > 390 or seen.page["inner"] > 390
    assert [shown for shown, _ in seen.page["images"]] == [False, False]
    assert [shown for shown, _ in seen.page["sounds"]] == [False]
    assert seen.page["tables"] == [None]
    assert seen.complaints
    assert "http://127.0.0.1:9/x.png" in seen.requests
