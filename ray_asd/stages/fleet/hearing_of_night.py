"""Which machines were heard in a night, which were not, and which sent the same sound again and again."""

from collections import Counter
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.fleet_tables import MACHINE
from ray_asd.scoring.alerts import Machine


def label(machine: Machine) -> str:
    """A machine as it is told of: ``fan 00 unit-7``."""
    return " ".join(part for part in machine if part is not None)


def machines(table: pa.Table) -> list[Machine]:
    """Of each row."""
    return list(zip(*(table[name].to_pylist() for name in MACHINE), strict=True))


def copies(clips: pa.Table) -> dict[int, str]:
    """The rows of CLIPS whose content another recording of the same machine has, with the first of these by time."""
    order = pc.sort_indices(clips, [("recorded_at", "ascending"), ("clip_id", "ascending")]).to_pylist()
    hashes, clip_ids, of_machines = clips["content_hash"].to_pylist(), clips["clip_id"], machines(clips)
    first: dict[tuple[Machine, str], int] = {}
    earliest = {row: first.setdefault((of_machines[row], hashes[row]), row) for row in order}
    return {row: clip_ids[earlier].as_py() for row, earlier in earliest.items() if earlier != row}


def told(sounds: pa.Table, past: pa.Table, unscored: pa.Table, decisions: pa.Table) -> dict[str, dict[str, object]]:
    """What a night's summary says of machines: ``silent`` ones with the last night on which they were heard, those
    ``learning`` with what they lack, machine types ``unknown`` to the detector and ``repeated`` recordings by number.

    Args:
        past: SOUNDS of the nights in which a machine must have been heard to be missed.
    """
    last: dict[Machine, date] = {}
    for machine, night in zip(machines(past), past["night"].to_pylist(), strict=True):
        last[machine] = max(night, last.get(machine, night))
    missing = set(last) - set(machines(sounds))
    rules = zip(machines(decisions), decisions["rule"].to_pylist(), decisions["detail"].to_pylist(), strict=True)
    of_reason: dict[str, Counter[str]] = {"no_bank": Counter(), "learning": Counter()}
    columns = (unscored[name].to_pylist() for name in ("machine_type", "section", "reason"))
    for kind, section, reason in zip(*columns, strict=True):
        if reason in of_reason:
            of_reason[reason][f"{kind} {section}"] += 1
    few = {group: f"too few enrolled clips to score its {count}" for group, count in of_reason["learning"].items()}
    repeated = zip(machines(sounds), sounds["repeated"].to_pylist(), strict=True)
    return {
        "silent": {label(machine): last[machine].isoformat() for machine in sorted(missing, key=label)},
        "unknown": dict(sorted(of_reason["no_bank"].items())),
        "learning": few | {label(machine): why for machine, rule, why in rules if rule is None},
        "repeated": {label(machine): count for machine, count in repeated if count},
    }
