"""The nights of a fleet: which output counts for each, and how it came to.

FLEET/nights/2026-11-25/000002.json   the second revision of that night; the newest entry counts (``store.ledger``)
      night/2026-11-25-<digest>/      the output that it names, a stage's like any other
      latest.json                     the newest revision of the newest night, for readers that know no dates
"""

import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.store import ledger

Why = Literal["night", "late", "rescore", "shadow"]

NIGHTS, LATEST = "nights", "latest.json"
_READERS = 16


class Night(BaseModel):
    """A revision of a night. All places but the detector's are below the fleet's folder.

    ``output`` has its tables, ``recordings`` and ``scores`` what each revision added, ``heard`` why machines alarm;
    ``sources`` are the ingests that were looked at, ``timeless`` is the one whose recordings without a time were taken,
    where all nights share a source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    night: date
    revision: int
    why: Why
    when: datetime = Field(default_factory=lambda: datetime.now(UTC))
    detector: str
    version: str | None
    output: str
    counts: dict[str, int]
    sources: dict[str, str] = {}
    timeless: str | None = None
    recordings: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    heard: str | None = None
    shadow: dict[str, tuple[str, ...]] = {}  # SCORES of other versions, by version; they alert nobody


def folder_of(fleet: str, night: date) -> str:
    """Where the revisions of a night stand."""
    return store.join(fleet, NIGHTS, night.isoformat())


def dates(fleet: str) -> list[date]:
    """The nights that were begun, oldest first; not all of them need have a revision."""
    found = []
    for name in store.folders(store.join(fleet, NIGHTS)):
        try:
            found.append(date.fromisoformat(name))
        except ValueError:  # nobody's night
            continue
    return sorted(found)


def newest(fleet: str, night: date) -> Night | None:
    """The revision that counts; None where there is none.

    Raises:
        StageError: its entry is damaged.
    """
    folder = folder_of(fleet, night)
    number = ledger.newest(folder)
    return ledger.entry_as(Night, folder, number) if number else None


def all_newest(fleet: str, nights: Iterable[date]) -> list[Night]:
    """The revisions that count of these nights, without those that have none."""
    with ThreadPoolExecutor(_READERS) as pool:
        return [night for night in pool.map(lambda day: newest(fleet, day), nights) if night]


def output(fleet: str, night: Night) -> Output:
    """The tables of a revision."""
    return build.resolve(store.join(fleet, night.output), "night")


def append(fleet: str, night: Night) -> bool:
    """Whether ``night`` became the revision of its number; then it is told to readers of ``LATEST`` as well."""
    if not ledger.append(folder_of(fleet, night.night), night.revision, night.model_dump(mode="json")):
        return False
    tell_latest(fleet)
    return True


def named(fleet: str) -> list[str]:
    """The places of all outputs that any revision of a night names, as far as they are there."""
    folders = [folder_of(fleet, day) for day in dates(fleet)]
    with ThreadPoolExecutor(_READERS) as pool:
        histories = list(pool.map(lambda folder: ledger.entries_as(Night, folder), folders))
    revisions = [one for history in histories for one in history]
    places = {place for one in revisions for place in (one.output, *one.recordings, *one.scores, *one.sources.values())}
    places |= {place for one in revisions for beside in one.shadow.values() for place in beside}
    places |= {one.heard for one in revisions if one.heard}
    uris = sorted(store.join(fleet, place) for place in places)
    with ThreadPoolExecutor(_READERS) as pool:
        return [uri for uri, found in zip(uris, pool.map(build.find, uris), strict=True) if found]


def is_told(fleet: str, night: Night) -> bool:
    """Whether ``LATEST`` knows of a revision; not where whoever appended it was killed before that."""
    try:
        said = Night.model_validate_json(store.read(store.join(fleet, LATEST)))
    except (FileNotFoundError, ValidationError):
        return False
    return (said.night, said.revision) >= (night.night, night.revision)


def tell_latest(fleet: str) -> None:
    """Write ``LATEST``, until what was written is what there is: of two nights that end at once each looks again."""
    told: Night | None = None
    while (newest_one := last(fleet)) and newest_one != told:
        store.write(store.join(fleet, LATEST), newest_one.model_dump_json(indent=1).encode())
        told = newest_one


def last(fleet: str) -> Night | None:
    """The newest revision of the newest night; None before the first."""
    return next((night for day in reversed(dates(fleet)) if (night := newest(fleet, day))), None)
