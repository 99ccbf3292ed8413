"""A confidence interval of the official score by resampling clips, bias-corrected (Efron & Tibshirani 1993, ch. 14).

Shapes: R resamples, N rows of the table, n clips of a section, U distinct scores among them.
"""

import numpy as np
import pyarrow as pa
import scipy
from numpy.typing import NDArray

from ray_asd.errors import UserError
from ray_asd.scoring.metrics import MAX_FPR, Bools, Section, sections
from ray_asd.scoring.protocols import PROTOCOLS, Floats, combined, one_protocol

Counts = NDArray[np.int64]


def interval(
    scores: pa.Table, resamples: int = 1000, seed: int = 0, level: float = 0.95, protocol: str = "auto"
) -> tuple[float, float]:
    """Ends of the central ``level`` interval of the official score of ``scores`` (columns as for ``sections``).

    Clips are drawn with replacement within each machine type, section, domain and label, so all counts stay as they
    are. The order of the rows does not matter.

    Raises:
        UserError: see :func:`resampled_scores`.
    """
    counts = resample(scores, resamples, np.random.default_rng(seed))
    score, *drawn = resampled_scores(scores, np.vstack([np.ones_like(counts[:1]), counts]), protocol)
    return bias_corrected(np.array(drawn), float(score), level)


def bias_corrected(drawn: Floats, figure: float, level: float = 0.95) -> tuple[float, float]:
    """Ends of the central ``level`` interval of ``figure``, of which ``drawn`` [R] are bootstrap resamples.

    The bias-corrected percentile method (BC: Efron & Tibshirani 1993, eq. 14.10 with acceleration 0): with z0 the
    normal quantile of the share of resamples below the figure (ties count half), the ends are the resamples' quantiles
    at Phi(2 z0 -+ z). A mean that is harmonic, or otherwise concave, comes out too low where its parts err, and once
    more so in a resample: plain percentiles lie below it twice over. Where that bias exceeds the spread, the interval
    leaves out the figure itself.
    """
    share = (np.mean(drawn < figure) + np.mean(drawn <= figure)) / 2
    z0 = scipy.special.ndtri(np.clip(share, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    z = scipy.special.ndtri((1 + level) / 2)
    low, high = np.quantile(drawn, scipy.special.ndtr([2 * z0 - z, 2 * z0 + z]))
    return float(low), float(high)


def resample(scores: pa.Table, resamples: int, rng: np.random.Generator) -> Counts:
    """How often each row is drawn in each resample [R, N]: by clip_id, whatever the scores and the order of rows."""
    clip_ids = scores["clip_id"].to_numpy(zero_copy_only=False)
    weights = np.zeros((resamples, len(scores)), dtype=np.int64)
    for section in sections(scores):
        cells = section.anomaly + (0 if section.target is None else 2 * section.target)
        for cell in np.unique(cells):
            members = np.flatnonzero(cells == cell)
            members = members[np.argsort(clip_ids[section.rows[members]])]
            weights[:, section.rows[members]] = rng.multinomial(
                len(members), np.full(len(members), 1 / len(members)), resamples
            )
    return weights


def resampled_scores(scores: pa.Table, weights: Counts, protocol: str = "auto") -> Floats:
    """Official scores [R] of tables in which row i of ``scores`` occurs ``weights[r, i]`` times (weights [R, N]).

    Raises:
        UserError: see ``sections``; or a figure of the official score lacks normal clips; or protocols are mixed.
    """
    found = sections(scores, protocol)
    name = one_protocol(section.protocol for section in found)
    figures = [[_weighted(s, figure, weights[:, s.rows]) for figure in PROTOCOLS[name].figures] for s in found]
    return combined(name, [section.machine_type for section in found], np.array(figures))


def _weighted(section: Section, figure: str, weights: Counts) -> Floats:
    """AUC or pAUC [R] of a section whose clips count ``weights`` [R, n] times."""
    members = np.flatnonzero(section.members(figure))
    if len(set(section.anomaly[members])) < 2:
        where = f"{section.machine_type} section {section.section}"
        raise UserError(f"{where} has no {figure}, which the official score needs")
    members = members[np.argsort(-section.score[members])]
    last_of_ties = np.append(np.diff(section.score[members]) != 0, True)
    true_positives = _cumulated(weights[:, members] * section.anomaly[members], last_of_ties)
    false_positives = _cumulated(weights[:, members] * ~section.anomaly[members], last_of_ties)
    if figure.startswith("pauc"):
        return _partial_auc(false_positives, true_positives)
    doubled = (np.diff(false_positives) * (true_positives[:, 1:] + true_positives[:, :-1])).sum(axis=-1)
    return np.asarray(doubled / (2 * true_positives[:, -1] * false_positives[:, -1]))


def _cumulated(counts: Counts, last_of_ties: Bools) -> Counts:
    """Clips at or above each of the U score levels, from none [R, 1 + U], of counts [R, n] by falling score."""
    return np.pad(counts.cumsum(axis=-1)[:, last_of_ties], ((0, 0), (1, 0)))


def _partial_auc(false_positives: Counts, true_positives: Counts) -> Floats:
    """Area under the ROC curve up to MAX_FPR, McClish-standardised [R], of cumulated counts [R, 1 + U]."""
    fpr = false_positives / false_positives[:, -1:]
    tpr = true_positives / true_positives[:, -1:]
    width = np.diff(fpr)
    kept = np.clip(MAX_FPR - fpr[:, :-1], 0, width)
    share = np.divide(kept, width, out=np.zeros_like(kept), where=width > 0)
    area = (kept * (tpr[:, :-1] + share * np.diff(tpr) / 2)).sum(axis=-1)
    chance = MAX_FPR**2 / 2
    return np.asarray(0.5 * (1 + (area - chance) / (MAX_FPR - chance)))
