"""Which night a recording is of, when a night is over, and where recordings arrive."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ray_asd.data.source import Source
from ray_asd.errors import Retryable, UserError
from ray_asd.stages.fleet import dates
from ray_asd.stages.fleet.dates import Arrivals, Calendar

NIGHT = date(2026, 11, 25)


def test_a_night_is_over_some_time_after_its_end() -> None:
    calendar = Calendar(timedelta(hours=6), timedelta(minutes=45))
    over = datetime(2026, 11, 26, 6, 45, tzinfo=UTC)
    assert calendar.closed(NIGHT) == over
    assert calendar.last(over) == NIGHT
    assert calendar.last(over - timedelta(seconds=1)) == date(2026, 11, 24)
    calendar.check(NIGHT, over)
    allowed = "allowed: 2026-11-24 or earlier, 2026-11-25 from 2026-11-26 06:45 UTC on"
    with pytest.raises(Retryable, match=f"night 2026-11-25 has not ended; {allowed}"):
        calendar.check(NIGHT, over - timedelta(seconds=1))


def test_nights_of_recordings_begin_when_the_plant_says() -> None:
    times = [datetime(2026, 11, 26, 5, 59, tzinfo=UTC), None, datetime(2026, 11, 26, 6, tzinfo=UTC)]
    column = pa.chunked_array([pa.array(times, pa.timestamp("us", tz="UTC"))])
    assert Calendar(timedelta(hours=6)).of(column).to_pylist() == [NIGHT, None, date(2026, 11, 26)]
    assert Calendar().of(column).to_pylist() == [date(2026, 11, 26), None, date(2026, 11, 26)]


@pytest.mark.parametrize(
    ("text", "expected"), [("45m", timedelta(minutes=45)), ("2h", timedelta(hours=2)), ("0", timedelta())]
)
def test_spans(text: str, expected: timedelta) -> None:
    assert dates.span(text) == expected


def test_nights_from_to() -> None:
    assert dates.nights("2026-11-24..2026-11-25") == [date(2026, 11, 24), NIGHT]
    assert dates.nights("2026-11-25") == [NIGHT]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (lambda: dates.span("45"), "'45' is no length of time; allowed: a number and s, m, h or d, such as 45m"),
        (lambda: dates.time_of_day("6:00"), "'6:00' is no time of day; allowed: HH:MM in UTC, such as 06:00"),
        (lambda: dates.night("25.11.2026"), "night '25.11.2026'; allowed: a date such as 2026-11-25"),
        (lambda: dates.night("9999-12-31"), "night '9999-12-31'; allowed: a date from 1970 to 9998"),
        (lambda: dates.night("0001-01-01"), "night '0001-01-01'; allowed: a date from 1970 to 9998"),
        (lambda: dates.nights("2026-11-25..2026-11-24"), "end before they begin; allowed: FROM..TO such as"),
        (lambda: Arrivals(Source("s3://b/{date}/x")), r"unknown words in braces; allowed: {night:%Y-%m-%d}"),
        (lambda: Arrivals(Source("s3://b/{night:%m-%Y}")), "nights share a place; allowed: year, month and day"),
    ],
)
def test_each_mistake_is_told_in_one_line(said: object, line: str) -> None:
    with pytest.raises(UserError) as error:
        said()  # type: ignore[operator]
    assert line in str(error.value)


def test_places_of_nights(tmp_path: Path) -> None:
    """Clips are named by what differs from night to night, so that two nights share no name."""
    for name in ("2026/11/24/in/a.wav", "2026/11/26/in/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "2026/11/25/in").mkdir(parents=True)
    arrivals = Arrivals(Source(f"{tmp_path}/{{night:%Y/%m/%d}}/in", dataset="plant"))
    days = [date(2026, 11, number) for number in (23, 24, 25)]
    ((source, day),) = arrivals.places(days)
    assert (source.uri, source.name, day) == (f"{tmp_path}/2026/11/24/in", "plant/2026/11/24/in", days[1])
    assert Arrivals(Source(f"{tmp_path}/{{night:%Y%m%d}}.csv")).of(NIGHT).name == "20261125"
    assert Arrivals(Source(f"{tmp_path}/2026")).places(days) == [(Source(f"{tmp_path}/2026"), None)]
    assert Arrivals(Source(f"{tmp_path}/none")).places(days) == []
