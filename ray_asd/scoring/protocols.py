"""The metric protocols of DCASE Task 2, as data: which figures enter the official score, and how.

- ``dcase2020`` (Koizumi et al. 2020, arXiv 2006.05822): AUC and pAUC of each machine id, here a section; arithmetic
  mean over the ids of a machine type, then over machine types. The clips have no domains.
- ``dcase2021`` (Kawaguchi et al. 2021, arXiv 2106.04492): AUC and pAUC of each domain, its normal clips against its own
  anomalies; harmonic mean over all machine types, sections and domains.
- ``dcase2023``, from 2022 on (Dohi et al. 2023, arXiv 2305.07828, and the organisers' evaluator): AUC of a domain, its
  normal clips against the anomalies of *both* domains; pAUC over all clips of the section; harmonic mean over all
  machine types and sections of AUC (source), AUC (target) and pAUC.
- ``no-domain``: AUC and pAUC of clips without domains, harmonic mean as from 2022 on.

pAUC: false positive rates up to 0.1, standardised after McClish so that chance is 0.5. Figures of different protocols
do not compare.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.errors import UserError

EPSILON = sys.float_info.epsilon  # smallest figure that enters a harmonic mean

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """What enters the official score and how: ``figures`` are columns of METRICS, ``of`` is for people."""

    figures: tuple[str, ...]
    of: str
    domains: bool = True  # whether it is for clips with domains, or for clips without
    own_anomalies: bool = False  # whether a domain's figures take the anomalies of that domain alone
    arithmetic: bool = False  # mean: over the sections of each machine type, then over those; else harmonic over all

    @property
    def mean(self) -> str:
        """Which mean of the figures it takes."""
        return "arithmetic mean" if self.arithmetic else "harmonic mean"

    @property
    def caption(self) -> str:
        """What a table of such scores shows."""
        return f"{self.mean.capitalize()} of {self.of}"


PROTOCOLS = {
    "dcase2020": Protocol(
        ("auc_all", "pauc"),
        "AUC and pAUC over the ids of a machine type, then over machine types (official DCASE 2020 Task 2 definitions)",
        domains=False,
        arithmetic=True,
    ),
    "dcase2021": Protocol(
        ("auc_source", "auc_target", "pauc_source", "pauc_target"),
        "AUC and pAUC of each domain, its normal clips against its own anomalies (official DCASE 2021 Task 2 "
        "definitions)",
        own_anomalies=True,
    ),
    "dcase2023": Protocol(
        ("auc_source", "auc_target", "pauc"),
        "source AUC, target AUC and pAUC (official DCASE 2023 Task 2 definitions)",
    ),
    "no-domain": Protocol(
        ("auc_all", "pauc"), "AUC and pAUC of clips without domains (no official figure of any year)", domains=False
    ),
}
CHOICES = ("auto", "dcase2020", "dcase2021", "dcase2023")
"""What may be asked for; auto is dcase2023, and no-domain for a section whose clips have no domains."""


def one_protocol(names: Iterable[str]) -> str:
    """The protocol that all of ``names`` are.

    Raises:
        UserError: there is none, or more than one.
    """
    found = sorted(set(names))
    if len(found) != 1:
        raise UserError(f"one score needs sections of one protocol; found: {', '.join(found) or 'no section'}")
    return found[0]


def harmonic(values: Sequence[float | None]) -> float | None:
    """The harmonic mean of figures; None where one is."""
    if None in values:
        return None
    return float(scipy.stats.hmean(np.maximum(np.array(values, dtype=np.float64), EPSILON)))


def mean_of(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean of the figures of METRICS ``rows`` as the official score of their one protocol takes it.

    None: there are no rows or several protocols among them, or a figure is null.
    """
    names = {row["protocol"] for row in rows}
    if len(names) != 1:
        return None
    (name,) = names
    values = [[row[figure] for figure in PROTOCOLS[name].figures] for row in rows]
    if any(value is None for line in values for value in line):
        return None
    return float(combined(name, [row["machine_type"] for row in rows], np.array(values, dtype=np.float64)))


def combined(protocol: str, machine_types: Sequence[str], values: Floats) -> Floats:
    """Official scores [...] of figures [S, F, ...]: of S sections, whose machine types are given, F figures each."""
    if not PROTOCOLS[protocol].arithmetic:
        return np.asarray(scipy.stats.hmean(np.maximum(values.reshape(-1, *values.shape[2:]), EPSILON), axis=0))
    names = np.array(machine_types)
    return np.asarray(np.mean([values[names == name].mean(axis=(0, 1)) for name in sorted(set(machine_types))], axis=0))
