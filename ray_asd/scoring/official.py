"""METRICS of one system laid out as the result file of the official evaluator of its protocol's year."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.scoring.metrics import official_score
from ray_asd.scoring.protocols import harmonic

Cells = list[str | float | None]
Row = Mapping[str, Any]

_MEASURES = {"AUC": "auc", "pAUC": "pauc", "precision": "precision", "recall": "recall", "F1 score": "f1"}
_EVERYTHING = " over all machine types, sections, and domains"
_SECTION_COLUMNS = {
    "section": "section",
    "AUC (all)": "auc_all",
    "AUC (source)": "auc_source",
    "AUC (target)": "auc_target",
    "pAUC": "pauc",
    **{
        f"{title} ({domain})": f"{name}_{domain}"
        for title, name in list(_MEASURES.items())[2:]
        for domain in tables.DOMAINS
    },
}


def table(metrics: pa.Table) -> list[Cells]:
    """The METRICS rows of one system and seed as the CSV rows of the official evaluator's result file.

    Null figures are empty cells. The last row is the official score, though the evaluators of 2020 and 2021 print none.
    Left out is "official score ci95" of later ones, which is not an interval of the official score;
    :func:`ray_asd.scoring.bootstrap.interval` gives one.

    Raises:
        UserError: see :func:`ray_asd.scoring.metrics.official_score`.
    """
    score = official_score(metrics)
    rows = sorted(metrics.to_pylist(), key=lambda row: (row["machine_type"], row["section"]))
    machines: dict[str, list[Row]] = {}
    for row in rows:
        machines.setdefault(row["machine_type"], []).append(row)
    lay_out = {"dcase2020": _of_2020, "dcase2021": _of_2021, "no-domain": _without_domains}.get(
        rows[0]["protocol"], _of_2023
    )
    return [*lay_out(machines), [], ["official score", None, score]]


def _of_2020(machines: Mapping[str, Sequence[Row]]) -> list[Cells]:
    return _plain(machines, "id", {"Average": _arithmetic})


def _without_domains(machines: Mapping[str, Sequence[Row]]) -> list[Cells]:
    return _plain(machines, "section", {"arithmetic mean": _arithmetic, "harmonic mean": harmonic})


def _plain(
    machines: Mapping[str, Sequence[Row]], head: str, means: Mapping[str, Callable[[Sequence[Any]], float | None]]
) -> list[Cells]:
    lines: list[Cells] = []
    for machine_type, own in machines.items():
        lines += [[machine_type], [head, "AUC", "pAUC"]]
        lines += [[row["section"], row["auc_all"], row["pauc"]] for row in own]
        for title, mean in means.items():
            lines.append([title, *(mean([row[name] for row in own]) for name in ("auc_all", "pauc"))])
        lines.append([])
    return lines[:-1]


def _of_2021(machines: Mapping[str, Sequence[Row]]) -> list[Cells]:
    """One line per section and domain, whose pAUC is its own."""
    means = {"arithmetic mean": _arithmetic, "harmonic mean": harmonic}
    lines: list[Cells] = []

    def averaged(rows: Sequence[Row], scope: str) -> list[Cells]:
        columns = [
            [row[f"{name}_{domain}"] for row in rows for domain in tables.DOMAINS] for name in _MEASURES.values()
        ]
        return [[title + scope, None, *map(mean, columns)] for title, mean in means.items()]

    for machine_type, own in machines.items():
        lines += [[machine_type], ["section", "domain", *_MEASURES]]
        for domain in tables.DOMAINS:
            lines += [
                [row["section"], domain, *(row[f"{name}_{domain}"] for name in _MEASURES.values())] for row in own
            ]
        lines += [*averaged(own, ""), []]
    rows = [row for own in machines.values() for row in own]
    return [*lines, [None, None, *_MEASURES], *averaged(rows, _EVERYTHING)]


def _of_2023(machines: Mapping[str, Sequence[Row]]) -> list[Cells]:
    lines: list[Cells] = []
    for machine_type, own in machines.items():
        lines += [[machine_type], list(_SECTION_COLUMNS)]
        lines += [[row[column] for column in _SECTION_COLUMNS.values()] for row in own]
        lines += [*_mean_lines(own, ""), []]
    return [*lines, *_mean_lines([row for own in machines.values() for row in own], _EVERYTHING)]


def _mean_lines(rows: Sequence[Row], scope: str) -> list[Cells]:
    means: dict[str, tuple[Callable[[Sequence[Any]], float | None], Sequence[str]]] = {
        "arithmetic mean": (_arithmetic, tables.DOMAINS),
        "harmonic mean": (harmonic, tables.DOMAINS),
        "source harmonic mean": (harmonic, ("source",)),
        "target harmonic mean": (harmonic, ("target",)),
    }
    lines: list[Cells] = [[None, None, *_MEASURES]]
    for title, (mean, domains) in means.items():
        columns = [
            ["pauc"] if name == "pauc" else [f"{name}_{domain}" for domain in domains] for name in _MEASURES.values()
        ]
        values = [mean([row[name] for row in rows for name in names]) for names in columns]
        lines.append([title + scope, None, *values])
    return lines


def _arithmetic(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(np.array(values, dtype=np.float64)))
