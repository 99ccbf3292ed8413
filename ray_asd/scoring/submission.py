"""The official DCASE Task 2 files: score and decision CSVs of a submission, and the ground truth they are judged by.

Each CSV has no header and one line per clip, ``file.wav,value``. Files are joined by clip name, never by position.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from ray_asd import store, tables
from ray_asd.errors import UserError

_SUBMISSION = pa.schema(
    [
        tables.SCORES.field(name)
        for name in ("clip_id", "machine_type", "section", "domain", "split", "label", "score", "decision")
    ]
)
_TRUTH_NAME = re.compile(r"ground_truth_(?P<machine_type>.+)_section_(?P<section>.+)_test\.csv")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Written:
    """Names of the files written, and of the decision files left out because a section has no decisions."""

    names: list[str]
    without_decisions: list[str]


@dataclass(frozen=True, slots=True)
class _Truth:
    """What is known of one section's test clips; all by file name, and ``known_as`` maps every accepted name to it."""

    machine_type: str
    section: str
    anomaly: dict[str, int]
    target: dict[str, int]
    known_as: dict[str, str]


def write(scores: pa.Table, folder: str) -> Written:
    """Put the official files of ``scores`` (clip_id, machine_type, section, score, decision of SCORES) in ``folder``.

    Scores are written so that reading them back gives the same float64.

    Raises:
        UserError: two clips of one section have the same file name.
    """
    folder = store.absolute(folder)
    sections: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in scores.select(["clip_id", "machine_type", "section", "score", "decision"]).to_pylist():
        sections.setdefault((row["machine_type"], row["section"]), []).append(row)
    names, without = [], []
    for (machine_type, section), rows in sorted(sections.items()):
        end = f"{machine_type}_section_{section}_test.csv"
        files = [store.name(str(row["clip_id"])) for row in rows]
        _refuse_duplicates(files, end)
        columns = {"anomaly_score": [repr(row["score"]) for row in rows]}
        if any(row["decision"] is None for row in rows):
            without.append(f"decision_result_{end}")
        else:
            columns["decision_result"] = [str(row["decision"]) for row in rows]
        for kind, values in columns.items():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(sorted(zip(files, values, strict=True)))
            store.write(store.join(folder, f"{kind}_{end}"), text.getvalue().encode())
            names.append(f"{kind}_{end}")
    return Written(names, without)


def read(scores_dir: str, truth_dir: str) -> dict[str, pa.Table]:
    """Every system below ``scores_dir``, judged by the ground truth in ``truth_dir``: tables for ``metrics.evaluate``.

    A system is a folder that holds anomaly_score files; its name is the path below ``scores_dir``, or that folder's
    own name. ``truth_dir`` holds ground_truth_data (1 = anomaly), ground_truth_domain (1 = target) and, if clips may go
    by their attribute names, ground_truth_attributes. What the truth has, each system must have; files of other
    machine types are left alone. A system without any decision file has null decisions.

    Raises:
        UserError: a file, clip or system is missing, or a clip or value is not one that belongs there.
    """
    scores_dir, truth_dir = store.absolute(scores_dir), store.absolute(truth_dir)
    truths = _read_truths(truth_dir)
    folders: dict[str, set[str]] = {}
    for entry in store.listing(scores_dir):
        folder, _, name = entry.path.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    systems = {folder: names for folder, names in folders.items() if any(map(_is_score, names))}
    if not systems:
        raise UserError(f"no system: no anomaly_score_*.csv in {scores_dir} or below")
    return {
        folder or store.name(scores_dir): _read_system(store.join(scores_dir, folder).rstrip("/"), names, truths)
        for folder, names in sorted(systems.items())
    }


def _is_score(name: str) -> bool:
    return name.startswith("anomaly_score_") and name.endswith(".csv")


def _read_truths(truth_dir: str) -> list[_Truth]:
    place = store.join(truth_dir, "ground_truth_data")
    matches = [_TRUTH_NAME.fullmatch(entry.path) for entry in store.listing(place)]
    truths = [_read_truth(truth_dir, match) for match in matches if match]
    if not truths:
        raise UserError(f"no ground truth: no ground_truth_<machine>_section_<NN>_test.csv in {place}")
    return truths


def _read_truth(truth_dir: str, match: re.Match[str]) -> _Truth:
    name, section = match[0], match["section"]
    anomaly = _values(store.join(truth_dir, "ground_truth_data", name), _flag)
    domain_uri = store.join(truth_dir, "ground_truth_domain", name)
    target = _values(domain_uri, _flag)
    _require_same(target, anomaly, domain_uri)
    known_as = {file: file for file in anomaly}
    # The task's description calls the clips section_00_test_0000.wav, its ground truth section_00_0000.wav.
    known_as |= {file.replace(f"section_{section}_", f"section_{section}_test_", 1): file for file in anomaly}
    attributes_uri = store.join(truth_dir, "ground_truth_attributes", name)
    if store.exists(attributes_uri):
        renamed = _values(attributes_uri, str)
        _require_same(renamed, anomaly, attributes_uri)
        known_as |= {text.removesuffix(".wav") + ".wav": file for file, text in renamed.items()}
    return _Truth(match["machine_type"], section, anomaly, target, known_as)


def _read_system(folder: str, names: set[str], truths: list[_Truth]) -> pa.Table:
    decided = any(name.startswith("decision_result_") and name.endswith(".csv") for name in names)
    rows = []
    for truth in truths:
        score = _joined(_find(folder, names, "anomaly_score", truth), _finite, truth)
        decision = _joined(_find(folder, names, "decision_result", truth), _flag, truth) if decided else {}
        rows += [
            {
                "clip_id": f"{truth.machine_type}/{file}",
                "machine_type": truth.machine_type,
                "section": truth.section,
                "domain": tables.DOMAINS[truth.target[file]],
                "split": "test",
                "label": tables.LABELS[truth.anomaly[file]],
                "score": score[file],
                "decision": decision.get(file),
            }
            for file in sorted(truth.anomaly)
        ]
    return pa.Table.from_pylist(rows, schema=_SUBMISSION)


def _find(folder: str, names: set[str], kind: str, truth: _Truth) -> str:
    wanted = f"{kind}_{truth.machine_type}_section_{truth.section}_test.csv"
    if wanted in names:
        return store.join(folder, wanted)
    part = re.escape(f"{truth.machine_type}_section_{truth.section}_test_seed")
    baseline = re.compile(rf"{kind}_DCASE\d{{4}}T2{part}\d+.*_Eval\.csv")  # as the organisers' baseline names it
    found = sorted(filter(baseline.fullmatch, names))
    if len(found) > 1:
        raise UserError(f"{folder}: {len(found)} files could be {wanted}: {', '.join(found)}; one is needed")
    if not found:
        raise UserError(f"{folder} lacks {wanted}")
    return store.join(folder, found[0])


def _joined(uri: str, convert: Callable[[str], Value], truth: _Truth) -> dict[str, Value]:
    """The values of a system's file under the ground truth's clip names."""
    values = _values(uri, convert)
    _refuse_duplicates((truth.known_as.get(name, name) for name in values), uri)
    joined = {truth.known_as.get(name, name): value for name, value in values.items()}
    _require_same(joined, truth.anomaly, uri)
    return joined


def _values(uri: str, convert: Callable[[str], Value]) -> dict[str, Value]:
    values = {}
    lines = list(_lines(uri))
    for name, text, line in lines:
        try:
            values[name] = convert(text)
        except ValueError as error:
            raise UserError(f"{uri} line {line}: {error}") from error
    _refuse_duplicates((name for name, _, _ in lines), uri)
    return values


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _flag(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is not 0 or 1")
    return int(text)


def _lines(uri: str) -> Iterator[tuple[str, str, int]]:
    """Name, value and line number of each line that is not empty."""
    try:
        reader = csv.reader(io.StringIO(store.read(uri).decode("utf-8-sig"), newline=""))
        for cells in reader:
            if len(cells) == 2:
                yield cells[0].strip(), cells[1].strip(), reader.line_num
            elif cells:
                raise UserError(
                    f"{uri} line {reader.line_num}: {len(cells)} values; a file name and a value are needed"
                )
    except FileNotFoundError as error:
        raise UserError(f"{uri} is missing") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{uri} is not a CSV text file: {error}") from error


def _refuse_duplicates(names: Iterable[str], where: str) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{where}: {len(repeated)} file names occur more than once, the first is {repeated[0]!r}")


def _require_same(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        raise UserError(f"{where}: {len(missing)} clips of the ground truth are missing, the first is {missing[0]!r}")
    if extra:
        raise UserError(f"{where}: {len(extra)} clips are not in the ground truth, the first is {extra[0]!r}")
