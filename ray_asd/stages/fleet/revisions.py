"""A revision of a night: its recordings scored, its tables made, its alerts followed, its manifest written last."""

from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.config import Resources
from ray_asd.engine.progress import Progress
from ray_asd.engine.session import Bring
from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.scoring.alerts import Alert, Persistence
from ray_asd.scoring.rules import Settings
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.detection import score
from ray_asd.stages.fleet import alerting, deciding, explain, manifests, naming, night, registry
from ray_asd.stages.fleet.deciding import Past
from ray_asd.stages.fleet.manifests import Night, Why

PAST = 60  # nights that a night is compared with
RECENT = 14  # nights that alerts are followed over, and in which a machine must have been heard to be missed
_READERS = 16

Tell = Callable[[str], None]
"""What a person is told on the way, in one line."""


@dataclass(frozen=True)
class Rules:
    """By what machines alarm, and when alarms are an alert."""

    decisions: Settings = field(default_factory=Settings)
    persistence: Persistence = field(default_factory=Persistence)


@dataclass(frozen=True)
class Fleet:
    """A fleet's place, and the rules and versions by which its nights are made.

    Args:
        registry: a registry, a version of one, or an output of enroll.
        shadow: versions of the registry that score beside it.
    """

    uri: str
    registry: str
    rules: Rules = field(default_factory=Rules)
    shadow: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)

    @cached_property
    def detector(self) -> Output:
        """What scores nights that have no revision yet, whatever becomes current meanwhile."""
        return registry.detector(self.registry)

    @cached_property
    def shadows(self) -> dict[str, Output]:
        """The detectors that score beside it, by version."""
        return {name: registry.found(naming.registry_of(self.registry), name) for name in self.shadow}

    def at(self, place: str) -> Output:
        """The output that a manifest names.

        Raises:
            StageError: it was removed.
        """
        output = build.find(store.join(self.uri, place))
        if output is None:
            raise StageError(f"{store.join(self.uri, place)} is named by a night, but was removed")
        return output

    def place(self, output: Output) -> str:
        """What manifests call it."""
        return output.uri.removeprefix(f"{self.uri}/")


@dataclass(frozen=True)
class Content:
    """What a revision is of: all recordings of the night so far, and the ingests that were looked at for it."""

    recordings: Sequence[Output]
    sources: Mapping[str, str]
    timeless: str | None


class Revisions:
    """Makes them, one after the other, with what ``bring`` brings."""

    def __init__(self, fleet: Fleet, bring: Bring, progress: Progress, tell: Tell) -> None:
        self.fleet, self._bring, self._progress, self._tell = fleet, bring, progress, tell

    def make(self, day: date, last: Night | None, content: Content, detector: Output, why: Why) -> Night | None:
        """The revision after ``last``; None where another process was faster."""
        scores = self._scores(detector, content.recordings)
        past = self._past(day)
        step = night.step(day, content.recordings, scores, detector, past, self.fleet.rules.decisions)
        tables = self._bring(step)
        heard = self._explained(tables, detector)
        made = Night(
            night=day,
            revision=last.revision + 1 if last else 1,
            why=why,
            detector=detector.uri,
            version=detectors.version(detector),
            output=self.fleet.place(tables),
            counts=tables.marker.counts,
            sources=dict(content.sources),
            timeless=content.timeless,
            recordings=tuple(map(self.fleet.place, content.recordings)),
            scores=tuple(map(self.fleet.place, scores)),
            heard=self.fleet.place(heard) if heard else None,
            shadow={**(last.shadow if last else {}), **self._beside(content.recordings)},
        )
        seen = self.follow(day, tables)
        is_made = manifests.append(self.fleet.uri, made)
        if not is_made or self._around(day).keys() != seen:
            self.follow(day)  # another process was faster: in this night, or in one of those around it
        return made if is_made else None

    def add_shadows(self, last: Night) -> Night | None:
        """A revision that differs from ``last`` by the SCORES of other versions alone."""
        shadow = {**last.shadow, **self._beside([self.fleet.at(place) for place in last.recordings])}
        if shadow == last.shadow:
            return None
        told = last.model_dump(exclude={"id", "when", "revision", "why", "shadow"})
        made = Night(revision=last.revision + 1, why="shadow", shadow=shadow, **told)
        return made if manifests.append(self.fleet.uri, made) else None

    def _scores(self, detector: Output, recordings: Sequence[Output]) -> list[Output]:
        steps = (
            score.step(detector, one, self.fleet.resources, self._progress)
            for one in recordings
            if one.marker.counts.get("test")
        )
        return [self._bring(step) for step in steps]

    def _beside(self, recordings: Sequence[Output]) -> dict[str, tuple[str, ...]]:
        """SCORES of the shadows; one that fails is told of, and the night goes on."""
        found = {}
        for name, detector in self.fleet.shadows.items():
            try:
                found[name] = tuple(map(self.fleet.place, self._scores(detector, recordings)))
            except Retryable:
                raise
            except (StageError, UserError) as error:
                self._tell(f"shadow {name}: {error}")
        return found

    def _explained(self, tables: Output, detector: Output) -> Output | None:
        """Why machines alarm; where that cannot be heard their alerts say no reason, and the night goes on."""
        try:
            return self._bring(explain.step(tables, detector)) if tables.marker.counts["alarms"] else None
        except Retryable:
            raise
        except (StageError, UserError) as error:
            self._tell(f"why machines alarm is not known: {error}")
            return None

    def _past(self, day: date) -> Past:
        fleet, rules = self.fleet.uri, self.fleet.rules
        before = [one for one in manifests.dates(fleet) if one < day][-PAST:]
        with ThreadPoolExecutor(_READERS) as pool:
            known = list(manifests.all_newest(fleet, before))
            outputs = list(pool.map(lambda one: manifests.output(fleet, one), known))
        nights = [(one.night, output) for one, output in zip(known, outputs, strict=True)]
        alerts = _as_before(alerting.current(fleet), day, rules.persistence)
        return Past(nights, alerts, rules.persistence.n, RECENT)

    def follow(self, day: date, tables: Output | None = None) -> Set[date]:
        """Bring alerts to what ``day`` says, and the later nights whose alerts its alarms may be part of.

        ``tables`` are what it is about to be; without them its newest revision counts. Returns the nights looked at.
        """
        around = {one: manifests.output(self.fleet.uri, night) for one, night in self._around(day).items()}
        around |= {day: tables} if tables else {}
        decided = {one: deciding.decisions(around[one]) for one in sorted(around)}
        for one in decided:
            if one >= day:
                last = [decided[each] for each in decided if each <= one][-RECENT:]
                heard = explain.known(self.fleet.uri, around[one]) if around[one].marker.counts["alarms"] else None
                why = explain.told(heard) if heard else {}
                alerting.follow_night(self.fleet.uri, last, self.fleet.rules.persistence, why)
        return around.keys()

    def _around(self, day: date) -> dict[date, Night]:
        """The nights whose alarms may count together with those of ``day``."""
        days = manifests.dates(self.fleet.uri)
        window = [*[one for one in days if one < day][-RECENT:], *[one for one in days if one >= day][: RECENT + 1]]
        return {night.night: night for night in manifests.all_newest(self.fleet.uri, window)}


def _as_before(alerts: Sequence[Alert], day: date, persistence: Persistence) -> list[Alert]:
    """Alerts without what ``day`` and later nights added: a night is decided on once more as it was at first."""
    shorter = (replace(alert, nights=tuple(one for one in alert.nights if one < day)) for alert in alerts)
    return [alert for alert in shorter if alert.count >= persistence.m]
