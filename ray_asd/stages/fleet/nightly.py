"""The nightly run: what arrived for a night is scored, decided on, followed by alerts, and then is that night.

    ingest -> recordings -> score -> night -> ALERTS -> manifest

The manifest is written last, by compare and swap: until then there is no such revision. Everything before it is found
again by whoever comes after a kill; following alerts once more changes nothing. A lease keeps a second run from doing
the same work; what is right does not depend on it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.build.steps import Step
from ray_asd.data.source import Source
from ray_asd.data.years import LAYOUTS
from ray_asd.engine.progress import Progress, silent
from ray_asd.engine.session import Bring, session
from ray_asd.stages.fleet import figures, manifests, recordings_of_night, registry
from ray_asd.stages.fleet.dates import DAY, Arrivals, Calendar
from ray_asd.stages.fleet.manifests import Night
from ray_asd.stages.fleet.recordings_of_night import Arrived
from ray_asd.stages.fleet.revisions import RECENT, Content, Fleet, Revisions, Tell
from ray_asd.stages.recordings import ingest
from ray_asd.store import lease

Arrival = tuple[Step, date | None]
"""How what arrived at a place is taken in, and the night that the place is of."""


@dataclass(frozen=True)
class Watch:
    """Where recordings arrive, when a night is over, and how many nights before it late ones are looked for."""

    arrivals: Arrivals
    calendar: Calendar = field(default_factory=Calendar)
    look_back: int = 1
    options: ingest.Options = field(default_factory=ingest.Options)

    def days(self, asked: date) -> list[date]:
        """The nights that a run for ``asked`` looks at, oldest first."""
        return [asked - back * DAY for back in range(self.look_back, -1, -1)]

    def places(self, asked: date) -> list[tuple[Source, date | None]]:
        """Where their recordings may be: a night that goes on after midnight ends in the place of the next date."""
        return self.arrivals.places([*self.days(asked), *([asked + DAY] if self.calendar.starts else [])])


@dataclass(frozen=True)
class Ended:
    """How a run ended: the revision that counts now, None where another process is at it; which others it made."""

    night: Night | None
    reused: bool = False
    others: Sequence[Night] = ()


def arrivals(fleet: Fleet, watch: Watch, asked: date, progress: Progress = silent) -> list[Arrival]:
    """What has arrived for ``asked`` and the nights before it, as it is now.

    Raises:
        Retryable: it has not ended.
        UserError: as ``ingest.step``.
    """
    watch.calendar.check(asked, datetime.now(UTC))
    worker = fleet.resources.ingest
    known = _layout(fleet, watch, asked) if watch.arrivals.is_open else None
    named = [(replace(source, layout=known or source.layout), day) for source, day in watch.places(asked)]
    return [(ingest.step(source, worker, progress, watch.options), day) for source, day in named]


def _layout(fleet: Fleet, watch: Watch, asked: date) -> str | None:
    """The layout that was recognised last: a night's few recordings need not tell layouts apart."""
    days = [day for day in manifests.dates(fleet.uri) if day <= asked][-RECENT:]
    nights = (night for day in reversed(days) if (night := manifests.newest(fleet.uri, day)) and night.sources)
    last = next(nights, None)
    layout = fleet.at([*last.sources.values()][-1]).marker.summary["layout"] if last else None
    return layout if layout in LAYOUTS and layout != "csv" else None


def run(fleet: Fleet, watch: Watch, asked: date, progress: Progress = silent, tell: Tell = lambda line: None) -> Ended:
    """Make ``asked`` a night, or give it a new revision where recordings have come since; the same for those before.

    Raises:
        Retryable: it has not ended.
        UserError: the registry, the source or its names are wrong.
    """
    steps = arrivals(fleet, watch, asked, progress)
    if done := _done(fleet, watch, asked, steps):
        if not manifests.is_told(fleet.uri, done):
            manifests.tell_latest(fleet.uri)
        return Ended(done, reused=True)
    with ExitStack() as stack:
        bring = stack.enter_context(session(fleet.uri, progress))
        held = _hold(fleet, asked, tell)
        if held is None:
            return Ended(None, reused=True)
        stack.enter_context(held)
        _ = fleet.detector, fleet.shadows
        arrived = [(bring(step), day) for step, day in steps]
        figures.tell(fleet.uri)
        revisions = Revisions(fleet, bring, progress, tell)
        made = {}
        for day in watch.days(asked):
            work = _Work(fleet, watch, asked, day, arrived)
            made[day] = _revised(work, revisions, bring, tell)
        last = manifests.newest(fleet.uri, asked)
        figures.tell(fleet.uri)
    return Ended(last, made[asked] is None, [one for day, one in made.items() if one and day != asked])


@dataclass(frozen=True)
class _Work:
    """One night of a run, and what arrived."""

    fleet: Fleet
    watch: Watch
    asked: date
    day: date
    arrived: Sequence[tuple[Output, date | None]]

    def recordings(self, last: Night | None) -> Step:
        """What of it is new."""
        known = [self.fleet.at(place) for place in last.recordings] if last else []
        timeless = self._is_timeless()
        before = self._before() if timeless else None
        arrived = [Arrived(output, timeless if day is None else day == self.day) for output, day in self.arrived]
        return recordings_of_night.step(self.day, self.watch.calendar, arrived, known, before)

    def _is_timeless(self) -> bool:
        """Whether recordings without a time are of this night: the newest one, where all nights share a place."""
        shared = not self.watch.arrivals.by_night
        return shared and self.day == self.asked and manifests.dates(self.fleet.uri)[-1:] <= [self.day]

    def _before(self) -> Output | None:
        """The ingest whose recordings without a time are of the night before."""
        days = [day for day in manifests.dates(self.fleet.uri) if day < self.day][-RECENT:]
        taken = [one.timeless for one in manifests.all_newest(self.fleet.uri, days) if one.timeless]
        return self.fleet.at(taken[-1]) if taken else None

    def sources(self, last: Night | None) -> dict[str, str]:
        """For its manifest."""
        looked_at = {str(output.marker.config["source"]): self.fleet.place(output) for output, _ in self.arrived}
        return {**(last.sources if last else {}), **looked_at}

    def content(self, last: Night | None, recordings: Output) -> Content:
        """Of its next revision."""
        known = [self.fleet.at(place) for place in last.recordings] if last else []
        timeless = self.fleet.place(self.arrived[0][0]) if self.arrived and self._is_timeless() else None
        return Content([*known, recordings], self.sources(last), timeless or (last.timeless if last else None))

    def has_all(self, last: Night | None) -> bool:
        """Whether ``last`` holds all that arrived, as far as can be told without doing anything."""
        if last and self.sources(last) == last.sources:
            return True
        if last is None and self.day == self.asked:
            return False
        step = self.recordings(last)
        done = build.find(step.key(self.fleet.uri).folder(self.fleet.uri))
        return done is not None and not done.marker.counts["new"]


def _done(fleet: Fleet, watch: Watch, asked: date, steps: Sequence[Arrival]) -> Night | None:
    """The night asked for, where nothing is to be done for it or those before it; reads only."""
    last = manifests.newest(fleet.uri, asked)
    if last is None or not set(fleet.shadow) <= set(last.shadow):
        return None
    found = [(build.find(step.key(fleet.uri).folder(fleet.uri)), day) for step, day in steps]
    arrived = [(output, day) for output, day in found if output]
    if len(arrived) < len(found):
        return None
    for day in watch.days(asked):
        if not _Work(fleet, watch, asked, day, arrived).has_all(manifests.newest(fleet.uri, day)):
            return None
    return last


def _hold(fleet: Fleet, day: date, tell: Tell) -> lease.Lease | None:
    store.check_conditional_writes(fleet.uri)
    return lease.claim(manifests.folder_of(fleet.uri, day), tell)


def _revised(work: _Work, revisions: Revisions, bring: Bring, tell: Tell) -> Night | None:
    """The revision that a night of a run was given; None where there was nothing to give it one for."""
    fleet, day, watch = work.fleet, work.day, work.watch
    is_held = day == work.asked
    with ExitStack() as stack:
        while True:
            last = manifests.newest(fleet.uri, day)
            if work.has_all(last):
                return _beside(work, last, revisions)
            recordings = bring(work.recordings(last))
            if day == work.asked and watch.arrivals.by_night:
                _tell_elsewhere(recordings, watch.days(day), tell)
            if not recordings.marker.counts["new"] and (last or day != work.asked):
                return _beside(work, last, revisions)
            if not is_held:
                held = _hold(fleet, day, tell)
                if held is None:
                    return None
                stack.enter_context(held)
                is_held = True
                continue
            detector = registry.detector(last.detector) if last else fleet.detector
            made = revisions.make(day, last, work.content(last, recordings), detector, "late" if last else "night")
            if made:
                return made


def _tell_elsewhere(recordings: Output, days: Sequence[date], tell: Tell) -> None:
    """What lies in the place of a night and is of one that nobody looks for there."""
    found = {date.fromisoformat(day): count for day, count in recordings.marker.summary["elsewhere"].items()}
    before, after = (
        sum(count for day, count in found.items() if is_so(day)) for is_so in (days[0].__gt__, (days[-1] + DAY).__lt__)
    )
    if before:
        tell(f"{before} recordings are of nights before {days[0]}, beyond what is looked back at; they are not scored")
    if after:
        tell(f"{after} recordings are of nights after {days[-1] + DAY}, as if clocks were fast; they are not scored")


def _beside(work: _Work, last: Night | None, revisions: Revisions) -> Night | None:
    """The revision that has the versions beside it which are asked for and were not before."""
    if last is None or work.day != work.asked or set(work.fleet.shadow) <= set(last.shadow):
        return None
    return revisions.add_shadows(last)


def rescore(
    fleet: Fleet, days: Sequence[date], progress: Progress = silent, tell: Tell = lambda line: None
) -> list[Night]:
    """The revisions that nights are given which the fleet's detector has not scored, of the recordings that they have.

    Raises:
        UserError: the registry is wrong.
    """
    made = []
    with session(fleet.uri, progress) as bring:
        revisions = Revisions(fleet, bring, progress, tell)
        for day in days:
            last = manifests.newest(fleet.uri, day)
            if last is None:
                tell(f"night {day} was never scored")
            elif last.detector != fleet.detector.uri and (held := _hold(fleet, day, tell)):
                with held:
                    made.append(_rescored(fleet, day, revisions))
    return [one for one in made if one]


def _rescored(fleet: Fleet, day: date, revisions: Revisions) -> Night | None:
    while (last := manifests.newest(fleet.uri, day)) and last.detector != fleet.detector.uri:
        content = Content([fleet.at(place) for place in last.recordings], last.sources, last.timeless)
        if made := revisions.make(day, last, content, fleet.detector, "rescore"):
            return made
    return None
