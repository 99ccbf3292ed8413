"""What a version that scored beside the one that counts would have said of the same nights."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from ray_asd import build, tables
from ray_asd.build import Output
from ray_asd.errors import UserError
from ray_asd.fleet_tables import NIGHTS
from ray_asd.scoring.alerts import Machine
from ray_asd.scoring.rules import Settings
from ray_asd.stages.fleet import manifests
from ray_asd.stages.fleet.deciding import decisions, joined
from ray_asd.stages.fleet.hearing_of_night import label, machines
from ray_asd.stages.fleet.night import SCORED
from ray_asd.stages.fleet.revisions import Fleet
from ray_asd.tables import Folder

_CLIP = ("clip_id", "content_hash", "decision")


@dataclass(frozen=True)
class Said:
    """What one of the two said of a night: how many clips it scored, which of them and which machines alarm."""

    scored: int
    clips: frozenset[tuple[str, str]]
    machines: frozenset[Machine]


@dataclass
class Comparison:
    """Two versions on the same nights; ``nights`` hold what counts, then what the shadow says."""

    version: str
    nights: dict[date, tuple[Said, Said]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Both side by side, and every machine on which they disagree."""
        yield f"{'':18}{'counts':>12}{self.version:>12}{'both':>12}"
        yield f"{'nights':18}{len(self.nights):12}{len(self.nights):12}{len(self.nights):12}"
        pairs = list(self.nights.values())
        ours, theirs = (sum(pair[number].scored for pair in pairs) for number in (0, 1))
        yield f"{'clips scored':18}{ours:12}{theirs:12}"
        for what in ("clips", "machines"):
            sets = [(getattr(one, what), getattr(other, what)) for one, other in pairs]
            counted = [sum(len(each) for each in column) for column in zip(*sets, strict=True)] or [0, 0]
            both = sum(len(one & other) for one, other in sets)
            yield f"{what + ' that alarm':18}{counted[0]:12}{counted[1]:12}{both:12}"
        for day, (one, other) in self.nights.items():
            for machine in sorted(one.machines ^ other.machines, key=label):
                only = "not by" if machine in one.machines else "only by"
                yield f"{day} {label(machine)}: an alarm {only} {self.version}"


def compared(fleet: str, version: str) -> Comparison:
    """The newest revisions of all nights that have SCORES of ``version`` beside them.

    Raises:
        UserError: no night has.
    """
    known = manifests.all_newest(fleet, manifests.dates(fleet))
    chosen = [night for night in known if version in night.shadow]
    if not chosen:
        there = ", ".join(sorted({name for night in known for name in night.shadow})) or "none"
        raise UserError(f"no night of {fleet} has {version} beside it (--shadow); allowed: {there}")
    found, past = Comparison(version), NIGHTS.empty_table()
    for night in chosen:
        beside = [Fleet(fleet, "").at(place) for place in night.shadow[version]]
        own = manifests.output(fleet, night)
        decided, means = _decided(own, beside, past, night.night)
        past = pa.concat_tables([past, means])
        found.nights[night.night] = (
            _said([own], decisions(own)),
            _said(beside, decided),
        )
    return found


def _decided(own: Output, beside: list[Output], past: pa.Table, day: date) -> tuple[pa.Table, pa.Table]:
    """DECISIONS by the shadow's scores, by the rule of the night itself and the shadow's own nights; and its NIGHTS."""
    from ray_asd.scoring import nights

    scores = joined(beside, Folder.SCORES, tables.SCORES, SCORED)
    detector = build.find(beside[0].marker.inputs["detector"].uri) if beside else None
    empty = tables.CALIBRATION.empty_table()
    calibration = detector.table(Folder.CALIBRATION, tables.CALIBRATION) if detector else empty
    settings = Settings(own.marker.config["rate"], own.marker.config["min_nights"])
    return nights.decide(scores, day, past, calibration, settings), nights.summary(scores, day)


def _said(outputs: list[Output], decisions: pa.Table) -> Said:
    clips = joined(outputs, Folder.SCORES, tables.SCORES, _CLIP)
    rows = zip(*(clips[name].to_pylist() for name in _CLIP), strict=True)
    alarms = zip(machines(decisions), decisions["alarm"].to_pylist(), strict=True)
    return Said(
        len(clips),
        frozenset((clip_id, content) for clip_id, content, decision in rows if decision),
        frozenset(machine for machine, alarm in alarms if alarm),
    )
