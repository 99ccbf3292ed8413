"""A detector in the making: the banks of its members, what they say of healthy clips, and all files of its folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import store, tables
from ray_asd.build import Attempt, File, Outcome
from ray_asd.config import Threshold
from ray_asd.errors import UserError
from ray_asd.models.card import CARD as MODEL_CARD
from ray_asd.models.card import WEIGHTS
from ray_asd.scoring import backend
from ray_asd.scoring.whitening import Scatter
from ray_asd.stages.detection import bank, calibrate, detector, healthy
from ray_asd.stages.detection.calibrate import Strangers
from ray_asd.stages.detection.detector import DetectorCard, GroupCard, MemberCard
from ray_asd.stages.detection.healthy import Group, Healthy, Range, Source
from ray_asd.stages.training.usage import Provenance, Used
from ray_asd.tables import Folder

_TRAINED = f"{Folder.TRAINED}/00000.parquet"
_NOTHING = Range(0, 0, 0)


@dataclass(frozen=True)
class Plan:
    """What a detector is made of.

    Args:
        sources: of each member, what it says of healthy clips.
        seen: of each member, which clips its training has seen.
        made_of: digests of all that, by name.
        seed: told in its scores where no member has one.
        withdrawn: contents that are left out.
        unheard: clips that could not be.
    """

    members: Sequence[Used]
    sources: Sequence[Sequence[Source]]
    seen: Sequence[Provenance]
    threshold: Threshold
    made_of: Mapping[str, str]
    seed: int | None = None
    withdrawn: Sequence[str] = ()
    unheard: int = 0


def made(attempt: Attempt, plan: Plan) -> Outcome:
    """All files of a detector.

    Raises:
        UserError: nothing is left to compare with, or members cannot be fused.
    """
    with TemporaryDirectory() as folder:
        fitted = []
        for number, (member, own, seen) in enumerate(zip(plan.members, plan.sources, plan.seen, strict=True)):
            local = Path(folder) / str(number)
            local.mkdir()
            found = healthy.laid_out(own, plan.withdrawn, local / healthy.VECTORS)
            fitted.append(_Member(attempt, number, member, seen, found, local))
        files = [file for member in fitted for file in member.saved()]
        groups, strangers = _groups(fitted)
        card = _card(plan, fitted, groups)
        tests = [row for member in fitted for row in member.self_test()]
    limits = calibrate.thresholds(strangers, plan.threshold)
    files += [
        attempt.put(detector.CARD, card.model_dump_json(indent=1).encode()),
        attempt.put_table(f"{Folder.CALIBRATION}/00000.parquet", calibrate.table(strangers)),
        attempt.put_table(f"{Folder.THRESHOLDS}/00000.parquet", limits),
        attempt.put_table(f"{Folder.SELF_TEST}/00000.parquet", pa.Table.from_pylist(tests, schema=tables.SELF_TEST)),
    ]
    return Outcome(files, *_told(card, limits, strangers, fitted, plan.unheard))


def _told(
    card: DetectorCard,
    limits: pa.Table,
    strangers: Mapping[Group, Strangers],
    fitted: Sequence["_Member"],
    unheard: int,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Counts and summary: which machines are still learning, and why."""
    learning = {
        " ".join((row["machine_type"], row["section"])): row["source"]
        for row in limits.to_pylist()
        if row["threshold"] is None
    }
    learning |= {f"{group.machine_type} {group.section}": group.why for group in card.groups if group.why}
    counts = {
        "clips": max(member.healthy.rows.num_rows for member in fitted),
        "groups": len(card.groups),
        "calibration": sum(len(found.scores) for found in strangers.values()),
        "learning": len(learning),
        "unheard": unheard,
    }
    collapsed = [f"{group.machine_type} {group.section}" for group in card.groups if group.collapsed]
    summary = {"system": card.system, "seed": card.seed, "learning": learning, "collapsed": collapsed}
    return counts, summary | {"twins": _twins(fitted)}


def _twins(members: Sequence["_Member"]) -> dict[str, int]:
    """By group, how many clips were the content of another one, and count once with it."""
    found: Counter[str] = Counter()
    for member in members:
        rows = member.healthy.rows
        several = rows.filter(pc.greater(pc.list_value_length(rows["twins"]), 0)).to_pylist()
        own = Counter[str]()
        for row in several:
            own[" ".join((row["machine_type"], row["section"]))] += len(row["twins"])
        found |= own
    return dict(sorted(found.items()))


class _Member:
    """One member in the making: its healthy clips, laid out, and its banks."""

    def __init__(
        self, attempt: Attempt, number: int, used: Used, seen: Provenance, found: Healthy, local: Path
    ) -> None:
        self._seen = seen
        self.used, self.healthy, self.ranges = used, found, found.ranges()
        self._attempt, self._number, self._local = attempt, number, local
        self.banks: dict[Group, bank.Bank] = {}
        self._fleet: Scatter | None = None
        if used.has_bank:
            self.banks, self._fleet = bank.fitted(found, self.ranges, used.usage.scoring)
        self.recalls: dict[Group, float] = {}

    @property
    def dim(self) -> int:
        """Values of an embedding."""
        return 0 if self.healthy.vectors is None else int(self.healthy.vectors.shape[1])

    def saved(self) -> list[File]:
        """Its files."""
        put, where = self._attempt, detector.member_folder(self._number)
        files = [put.put_table(store.join(where, f"{Folder.HEALTHY}/00000.parquet"), self.healthy.rows)]
        if self.used.home:
            for name, local in zip((MODEL_CARD, WEIGHTS), self.used.files(), strict=True):
                files.append(put.put_file(store.join(where, name), local))
            if self._seen.trained is not None:
                table = pa.table({"content_hash": pa.array(sorted(self._seen.trained), pa.string())})
                files.append(put.put_table(store.join(where, _TRAINED), table))
        if self.used.has_bank:
            files.append(put.put_file(store.join(where, healthy.VECTORS), self._local / healthy.VECTORS))
            more, self.recalls = bank.saved(put, where, self.banks, self.used.usage.scoring, self._local)
            files += more
        return files

    def why_not(self, group: Group) -> str | None:
        """Why clips of this group cannot be scored by it."""
        own = self.ranges.get(group, _NOTHING)
        if group in self.banks or (not self.used.has_bank and group in self.ranges):
            return None
        if not self.used.has_bank:
            return f"{self.used.system} was given none of its clips"
        needed = backend.needed(self.used.backend)
        return f"{own.size} training clips to compare with; {needed} are needed"

    def strangers(self, group: Group) -> Strangers:
        """What it says of healthy clips that it has never seen."""
        own = self.ranges.get(group, _NOTHING)
        if not self.used.has_bank:
            return calibrate.of_baseline(self.healthy, own)
        return calibrate.of_bank(self.healthy, own, self.banks[group], self.used.backend, self._fleet)

    def is_collapsed(self, group: Group) -> bool:
        """Whether its embeddings of a group lie no further apart than float32 can tell."""
        if self.healthy.vectors is None or group not in self.banks:
            return False
        own = self.ranges[group]
        return backend.median_nearest(self.healthy.vectors[own.start : own.bank]) < backend.COLLAPSED

    def self_test(self) -> list[dict[str, Any]]:
        """Of each bank its first clip, left out, and the score it gets."""
        found: list[dict[str, Any]] = []
        for group, made in self.banks.items():
            assert self.healthy.vectors is not None
            vector, content = self.healthy.vectors[self.ranges[group].start], made.hashes[0]
            (score,) = made.compare(vector[None], [content]).scores
            named = {"member": self._number, "machine_type": group[0], "section": group[1]}
            named |= {"clip_id": made.clip_ids[0], "content_hash": content}
            found.append(named | {"vector": vector.tolist(), "score": float(score)})
        return found


def _groups(members: Sequence[_Member]) -> tuple[list[GroupCard], dict[Group, Strangers]]:
    """Every group that a member knows, and the calibration of those that all members can score.

    Raises:
        UserError: several members have no group in common that they can be fused for.
    """
    cards: list[GroupCard] = []
    found: dict[Group, Strangers] = {}
    for group in sorted({group for member in members for group in member.ranges}):
        why = next((why for member in members if (why := member.why_not(group))), None)
        standards = None
        apart = [] if why else [member.strangers(group) for member in members]
        if len(members) > 1 and not why:
            why = calibrate.why_not_fused(apart, [member.used.system for member in members])
            standards = None if why else calibrate.standards(apart)
        found[group] = Strangers.none(f"none: {why}") if why else calibrate.together(apart, standards)
        ranges = [member.ranges.get(group, _NOTHING) for member in members]
        cards.append(
            GroupCard(
                machine_type=group[0],
                section=group[1],
                ranges=[(own.start, own.bank, own.stop) for own in ranges],
                has_bank=[group in member.banks for member in members],
                why=why,
                standards=standards,
                recall=next((member.recalls[group] for member in members if group in member.recalls), None),
                collapsed=any(member.is_collapsed(group) for member in members),
            )
        )
    if len(members) > 1 and all(card.why for card in cards):
        raise UserError(f"these models cannot be fused: {cards[0].machine_type} {cards[0].section}: {cards[0].why}")
    return cards, found


def _card(plan: Plan, members: Sequence[_Member], groups: list[GroupCard]) -> DetectorCard:
    seeds: set[int | None] = {member.used.seed for member in members if member.used.seed is not None} or {plan.seed}
    return DetectorCard(
        system=" & ".join(member.used.system for member in members),
        seed=seeds.pop() if len(seeds) == 1 else None,
        members=[
            MemberCard(
                method=member.used.method,
                system=member.used.system,
                seed=member.used.seed,
                digest=_digest(member.used),
                audio=member.used.audio,
                inference=member.used.usage.inference,
                scoring=member.used.usage.scoring,
                dim=member.dim,
            )
            for member in members
        ],
        groups=groups,
        threshold=plan.threshold,
        sources=dict(plan.made_of),
    )


def _digest(used: Used) -> str:
    if used.home is None:
        return used.method
    return used.card().weights_sha256
