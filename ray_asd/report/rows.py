"""What METRICS and the markers behind them say: one row per system and seed, and what it was made from."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray_asd import build
from ray_asd.build import Marker, Output, Source, archive
from ray_asd.config import Recipe
from ray_asd.models.card import CARD, read_card
from ray_asd.scoring.protocols import mean_of
from ray_asd.tables import Folder

_NOT_COUNTED = "ingest"  # done before any system is
_SYSTEMS = "scores_"  # first part of the names of the systems' SCORES among an evaluation's inputs


@dataclass(frozen=True)
class Parts:
    """What a system is made of, by the paper's names."""

    method: str
    family: str
    ws: bool
    sa: bool
    tfp: bool

    @classmethod
    def of(cls, recipe: Recipe) -> "Parts":
        """Those of a recipe."""
        switches = (recipe.backbone.weighted_sum, recipe.augmentation, recipe.transformer_pooling)
        return cls(recipe.method, recipe.backbone.family, *(bool(on) for on in switches))

    @property
    def switches(self) -> tuple[bool, bool, bool]:
        """(WS, SA, TFP)."""
        return self.ws, self.sa, self.tfp


@dataclass(frozen=True)
class Origin:
    """Behind a row: its parts, its learned layer weights (from the first layer's input on), and all its stages."""

    parts: Parts | None  # None: features without training, or a fusion
    layer_weights: Sequence[float] | None
    stages: Mapping[str, Marker]  # by URI
    clips: Output | None
    scores: Output


@dataclass(frozen=True)
class Difference:
    """By how much one system exceeds another, with its interval, as fractions."""

    value: float
    low: float
    high: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """One system and seed: its all-machine figure with interval, and its figure per machine type, as fractions.

    ``against``: how much better it is than the baseline on the same clips; None where that is not known.
    ``protocols`` say what the figures are (``scoring.protocols``): one, unless some sections have domains and others
    none. ``copies``: how many clips do not count because they lie there twice.
    """

    system: str
    seed: int | None
    score: float | None
    low: float | None
    high: float | None
    why: str | None
    machines: dict[str, float | None]
    uri: str
    origin: Origin | None = None  # None: of a submission folder, or no longer there
    against: Difference | None = None
    baseline: tuple[str, int | None] | None = None  # its system and seed
    protocols: tuple[str, ...] = ("dcase2023",)
    copies: int = 0


def collect(outputs: Iterable[Output]) -> list[Row]:
    """The rows of these ``evaluate`` outputs, best first; a system that several of them hold appears once."""
    rows: dict[tuple[object, ...], Row] = {}
    find = cache(build.find)
    for output in outputs:
        sections: dict[tuple[str, int | None], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for row in output.table(Folder.METRICS).to_pylist():
            sections[row["system"], row["seed"]][row["machine_type"]].append(row)
        origins = _origins(output, find)
        for system in output.marker.summary["systems"]:
            key = (system["system"], system["seed"])
            figures = {machine: mean_of(own) for machine, own in sections[key].items()}
            protocols = sorted({row["protocol"] for own in sections[key].values() for row in own})
            interval = (system["score"], system.get("low"), system.get("high"))
            against = _against(system.get("against"))
            baseline = (system["against"]["system"], system["against"].get("seed")) if against else None
            found = Row(
                *key,
                *interval,
                system.get("why"),
                figures,
                output.uri,
                origins.get(key),
                against,
                baseline,
                tuple(protocols),
                system.get("copies", 0),
            )
            rows[(*key, system["score"], tuple(sorted(figures.items())), *protocols)] = found
    return sorted(rows.values(), key=lambda row: (-(row.score or 0), row.system, row.seed or 0))


def _against(found: Mapping[str, float] | None) -> Difference | None:
    return Difference(found["difference"], found["low"], found["high"]) if found else None


Find = Callable[[str], Output | None]


def _origins(metrics: Output, find: Find) -> dict[tuple[str, int | None], Origin]:
    """By system and seed, from the SCORES that the METRICS were made of."""
    found = {}
    for name, source in metrics.marker.inputs.items():
        scores = find(source.uri)
        if scores is None:
            continue
        variant = metrics.marker.config.get("variant", "") if name.startswith(_SYSTEMS) else ""
        key = (scores.marker.summary["system"] + variant, scores.marker.summary["seed"])
        found[key] = _origin(scores, find)
    return found


def scored_by(metrics: Output) -> set[str]:
    """URIs of the SCORES that METRICS were made of, but for the baseline's, which many of them share."""
    return {source.uri for name, source in metrics.marker.inputs.items() if name.startswith(_SYSTEMS)}


def _origin(scores: Output, find: Find) -> Origin:
    inputs = scores.marker.inputs
    models = models_of(find(inputs["detector"].uri), find)
    card = read_card(models[0].fetch(CARD)) if len(models) == 1 else None
    stages = {output.uri: output.marker for output in archive.lineage(scores, find)}
    return Origin(
        Parts.of(card.recipe) if card and not is_fused(scores) else None,
        card.layer_weights if card else None,
        {uri: marker for uri, marker in stages.items() if marker.stage != _NOT_COUNTED},
        find(inputs["clips"].uri),
        scores,
    )


def models_of(detector: Output | None, find: Find) -> list[Output]:
    """The trained models of a detector, where they still are."""
    inputs = first_enrolled(detector, find)
    found = [find(inputs[name].uri) for name in sorted(inputs) if name.startswith("model_")]
    return [model for model in found if model]


def first_enrolled(detector: Output | None, find: Find) -> Mapping[str, Source]:
    """What a detector was made from, before it was extended."""
    while detector and "detector" in detector.marker.inputs:
        detector = find(detector.marker.inputs["detector"].uri)
    return detector.marker.inputs if detector else {}


def is_fused(scores: Output) -> bool:
    """Whether they are of a detector of several models."""
    return int(scores.marker.summary.get("members", 1)) > 1
