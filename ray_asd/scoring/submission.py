"""The official DCASE Task 2 files: score and decision CSVs of a submission, named as each year wants them.

Each CSV has no header and one line per clip, ``file.wav,value``. Files are joined by clip name, never by position.
Names are ``anomaly_score_fan_section_00_test.csv`` from 2022 on, ``..._section_03_source_test.csv`` for each domain in
2021, and ``anomaly_score_fan_id_01.csv`` in 2020, which asked for no decisions.
"""

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ray_asd import store, tables
from ray_asd.errors import UserError
from ray_asd.scoring import ground_truth
from ray_asd.scoring.csv_lines import Value, flag, refuse_duplicates, require_same, values
from ray_asd.scoring.ground_truth import Truth

_SUBMISSION = pa.schema(
    [
        tables.SCORES.field(name)
        for name in ("clip_id", "machine_type", "section", "domain", "split", "label", "score", "decision")
    ]
)
NAMED = ["clip_id", "machine_type", "section", "domain"]
_WRITTEN = [*NAMED, "score", "decision"]


@dataclass(frozen=True, slots=True)
class Written:
    """Names of the files written, and of the decision files left out because a section has no decisions."""

    names: list[str]
    without_decisions: list[str]


def check(clips: pa.Table, folder: str, protocol: str = "dcase2023") -> None:
    """Refuse what ``write`` would refuse once ``clips`` (clip_id, machine_type, section, domain of CLIPS) are scored.

    Raises:
        UserError, Retryable: as ``write`` raises, or nothing can be put in ``folder``.
    """
    store.check_writable(store.absolute(folder))
    _by_file(clips.select(NAMED), protocol)


def write(scores: pa.Table, folder: str, protocol: str = "dcase2023") -> Written:
    """Put the official files of ``scores`` in ``folder``, named as in the year of ``protocol``.

    Columns are clip_id, machine_type, section, score, decision of SCORES, in 2021 domain too. Scores are written so
    that reading them back gives the same float64. Machine types and sections stand in the files' names as
    ``store.file_name`` has them.

    Raises:
        UserError: two clips of one file have the same name, or the year's files are of a domain and a clip has none.
    """
    folder = store.absolute(folder)
    names, without = [], []
    for end, rows in _by_file(scores.select(_WRITTEN), protocol).items():
        files = [store.name(str(row["clip_id"])) for row in rows]
        kinds = {"anomaly_score": [repr(row["score"]) for row in rows]}
        if protocol != "dcase2020":
            if any(row["decision"] is None for row in rows):
                without.append(f"decision_result_{end}")
            else:
                kinds["decision_result"] = [str(row["decision"]) for row in rows]
        for kind, texts in kinds.items():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(sorted(zip(files, texts, strict=True)))
            store.write(store.join(folder, f"{kind}_{end}"), text.getvalue().encode())
            names.append(f"{kind}_{end}")
    return Written(names, without)


def _by_file(clips: pa.Table, protocol: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, by what its name ends with."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in clips.sort_by([("machine_type", "ascending"), ("section", "ascending")]).to_pylist():
        found.setdefault(_end(row["machine_type"], row["section"], row["domain"], protocol), []).append(row)
    for end, rows in found.items():
        refuse_duplicates([store.name(row["clip_id"]) for row in rows], f"--submission: {end}")
    return found


def _end(machine_type: str, section: str, domain: str | None, protocol: str) -> str:
    """What the name of a file ends with. No two sections share it: the last mark is the one before theirs."""
    mark = "id_" if protocol == "dcase2020" else "section_"
    apart = store.file_name(section).replace(mark, f"{mark[:-1]}%5F")
    start = f"{store.file_name(machine_type)}_{mark}{apart}"
    if protocol == "dcase2020":
        return f"{start}.csv"
    if protocol != "dcase2021":
        return f"{start}_test.csv"
    if domain is None:
        raise UserError(f"{machine_type} section {section}: files of {protocol} are of a domain, and a clip has none")
    return f"{start}_{domain}_test.csv"


@dataclass(frozen=True, slots=True)
class Judged:
    """A table for ``metrics.evaluate`` of every system, and the protocol of the year whose files these are."""

    systems: dict[str, pa.Table]
    protocol: str


def read(scores_dir: str, truth_dir: str) -> Judged:
    """Every system below ``scores_dir``, judged by the ground truth at ``truth_dir`` (see ``ground_truth``).

    A system is a folder that holds anomaly_score files; its name is the path below ``scores_dir``, or that folder's
    own name. What the truth has, each system must have; files of other machine types are left alone. A system without
    any decision file has null decisions.

    Raises:
        UserError: a file, clip or system is missing, or a clip or value is not one that belongs there; or the ground
            truth is of several years.
    """
    scores_dir, truth_dir = store.absolute(scores_dir), store.absolute(truth_dir)
    truths = ground_truth.read(truth_dir)
    protocols = sorted({truth.protocol for truth in truths})
    if len(protocols) > 1:
        raise UserError(f"{truth_dir} holds the ground truth of {' and '.join(protocols)}; allowed: of one year")
    folders: dict[str, set[str]] = {}
    for entry in store.listing(scores_dir):
        folder, _, name = entry.path.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    systems = {folder: names for folder, names in folders.items() if any(map(_is_score, names))}
    if not systems:
        raise UserError(f"no system: no anomaly_score_*.csv in {scores_dir} or below")
    found = {
        folder or store.name(scores_dir): _read_system(store.join(scores_dir, folder).rstrip("/"), names, truths)
        for folder, names in sorted(systems.items())
    }
    return Judged(found, protocols[0])


def _is_score(name: str) -> bool:
    return name.startswith("anomaly_score_") and name.endswith(".csv")


def _read_system(folder: str, names: set[str], truths: list[Truth]) -> pa.Table:
    decided = any(name.startswith("decision_result_") and name.endswith(".csv") for name in names)
    rows = []
    for truth in truths:
        score = _joined(_find(folder, names, "anomaly_score", truth), _finite, truth)
        decision = _joined(_find(folder, names, "decision_result", truth), flag, truth) if decided else {}
        rows += [
            {
                "clip_id": f"{truth.machine_type}/{file}",
                "machine_type": truth.machine_type,
                "section": truth.section,
                "domain": truth.domain(file),
                "split": "test",
                "label": tables.LABELS[truth.anomaly[file]],
                "score": score[file],
                "decision": decision.get(file),
            }
            for file in sorted(truth.anomaly)
        ]
    return pa.Table.from_pylist(rows, schema=_SUBMISSION)


def _find(folder: str, names: set[str], kind: str, truth: Truth) -> list[str]:
    """The files of a section: one, or in 2021 one of each domain."""
    domains: list[str | None] = [tables.DOMAINS[number] for number in sorted(set(truth.target.values()))]
    ends = {_end(truth.machine_type, truth.section, name, truth.protocol) for name in domains or [None]}
    wanted = sorted(f"{kind}_{end}" for end in ends)
    stem = f"{kind}_{truth.machine_type}_section_{truth.section}"
    for files in (wanted, [f"{stem}_test.csv"], [f"{stem}.csv"]):
        if names.issuperset(files):
            return [store.join(folder, file) for file in files]
    part = re.escape(f"{truth.machine_type}_section_{truth.section}_test_seed")
    baseline = re.compile(rf"{kind}_DCASE\d{{4}}T2{part}\d+.*_Eval\.csv")  # as the organisers' baseline names it
    found = sorted(filter(baseline.fullmatch, names))
    missing = next(file for file in wanted if file not in names)
    if len(found) > 1:
        raise UserError(f"{folder}: {len(found)} files could be {missing}: {', '.join(found)}; one is needed")
    if not found:
        raise UserError(f"{folder} lacks {missing}")
    return [store.join(folder, found[0])]


def _joined(uris: list[str], convert: Callable[[str], Value], truth: Truth) -> dict[str, Value]:
    """The values of a system's files under the ground truth's clip names."""
    joined: dict[str, Value] = {}
    for uri in uris:
        own = values(uri, convert)
        refuse_duplicates([*joined, *(truth.known_as.get(name, name) for name in own)], uri)
        joined |= {truth.known_as.get(name, name): value for name, value in own.items()}
    require_same(joined, truth.anomaly, uris[-1])
    return joined


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value
