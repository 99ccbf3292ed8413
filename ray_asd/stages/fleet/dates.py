"""Which night a recording is of, when a night has ended, and where its recordings arrive."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import store
from ray_asd.data.source import Source
from ray_asd.errors import Retryable, UserError

DAY = timedelta(days=1)
_NIGHT = re.compile(r"\{night:([^{}]*)\}")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Calendar:
    """A night is a date of UTC, from ``starts`` on; it counts as ended ``grace`` after its end."""

    starts: timedelta = timedelta()
    grace: timedelta = timedelta()

    def closed(self, night: date) -> datetime:
        """When ``night`` has ended and its recordings had time to arrive."""
        return datetime.combine(night, time(), UTC) + DAY + self.starts + self.grace

    def last(self, now: datetime) -> date:
        """The last night that has ended by then."""
        return (now - self.starts - self.grace).date() - DAY

    def check(self, night: date, now: datetime) -> None:
        """
        Raises:
            Retryable: ``night`` has not ended.
        """
        if now < self.closed(night):
            when = f"{self.closed(night):%Y-%m-%d %H:%M} UTC"
            raise Retryable(
                f"night {night} has not ended; allowed: {self.last(now)} or earlier, {night} from {when} on"
            )

    def of(self, recorded_at: pa.ChunkedArray) -> pa.ChunkedArray:
        """The nights of recordings, a null where their time is not known."""
        return pc.cast(pc.subtract(recorded_at, pa.scalar(self.starts, pa.duration("us"))), pa.date32())


def night(text: str) -> date:
    """
    Raises:
        UserError: that is no date.
    """
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"night {text!r}; allowed: a date such as 2026-11-25") from error
    if not 1970 <= found.year < 9999:  # with room for the nights before and after it
        raise UserError(f"night {text!r}; allowed: a date from 1970 to 9998")
    return found


def nights(text: str) -> list[date]:
    """``FROM..TO``, both of them among the nights.

    Raises:
        UserError: that is no such span.
    """
    first, _, last = text.partition("..")
    begin, end = night(first), night(last or first)
    if end < begin:
        raise UserError(f"nights {text!r} end before they begin; allowed: FROM..TO such as 2026-11-01..2026-11-25")
    return [begin + number * DAY for number in range((end - begin).days + 1)]


def span(text: str) -> timedelta:
    """``45m``, ``2h`` or ``0``.

    Raises:
        UserError: that is no such length of time.
    """
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found and text != "0":
        raise UserError(f"{text!r} is no length of time; allowed: a number and s, m, h or d, such as 45m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()


def time_of_day(text: str) -> timedelta:
    """``HH:MM`` as time since midnight.

    Raises:
        UserError: that is no time of day.
    """
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", text)
    if not found:
        raise UserError(f"{text!r} is no time of day; allowed: HH:MM in UTC, such as 06:00")
    return timedelta(hours=int(found[1]), minutes=int(found[2]))


@dataclass(frozen=True)
class Arrivals:
    """Where recordings arrive: one place for all, or one for each night, whose URI then holds ``{night:%Y-%m-%d}``.

    Raises:
        UserError: the URI holds something else in braces, or a date that tells no days apart.
    """

    source: Source

    def __post_init__(self) -> None:
        uri = self.source.uri
        if re.search(r"[{}]", _NIGHT.sub("", uri)):
            raise UserError(
                f"{uri}: unknown words in braces; allowed: {{night:%Y-%m-%d}} with the date as strftime has it"
            )
        if self.by_night and len({self._uri(date(2026, 1, 28) + number * DAY) for number in range(366)}) < 366:
            raise UserError(f"{uri}: nights share a place; allowed: year, month and day, such as {{night:%Y/%m/%d}}")

    @property
    def by_night(self) -> bool:
        """Whether each night has a place of its own."""
        return _NIGHT.search(self.source.uri) is not None

    @property
    def is_open(self) -> bool:
        """Whether nobody has said how recordings are named."""
        return self.source.layout == "auto" and self.source.pattern is None

    def _uri(self, day: date) -> str:
        return _NIGHT.sub(lambda found: day.strftime(found[1]), self.source.uri)

    def of(self, night: date) -> Source:
        """The place of ``night``; clips are named by all of its URI that differs from night to night."""
        if not self.by_night:
            return self.source
        uri, place = self._uri(night), _NIGHT.search(self.source.uri)
        first = self.source.uri[: place.start()].count("/") if place else 0
        own = re.sub(r"(?i)\.(csv|zip)$", "", "/".join(uri.split("/")[first:]))
        return replace(self.source, uri=uri, dataset="/".join(filter(None, [self.source.dataset, own])))

    def places(self, nights: Sequence[date]) -> list[tuple[Source, date | None]]:
        """The places to look at for ``nights``, where anything is, each with the night that it is of."""
        found: list[tuple[Source, date | None]] = [(self.of(day), day) for day in nights]
        if not self.by_night:
            found = [(self.source, None)]
        return [(source, day) for source, day in found if holds_files(source.uri)]


def holds_files(uri: str) -> bool:
    """Whether there is a file, or a folder with one."""
    if not store.is_folder(uri):
        return store.exists(uri)
    return next(iter(store.survey(uri)), None) is not None
