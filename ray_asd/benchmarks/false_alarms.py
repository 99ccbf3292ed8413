"""How often healthy clips alarm, and how well faults are heard: detectors without weights on simulated fleets.

    python -m ray_asd.benchmarks.false_alarms

Per fleet and back-end: the official figure; the share of healthy test clips of each domain above thresholds that were
set, by leaving each training clip out in turn, for one in ten; and how far the p-values of healthy clips are from
uniform (Kolmogorov and Smirnov), where all training clips but one are of the source domain, as the clips asked about.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click
import numpy as np
import pyarrow as pa
from scipy import stats

from ray_asd import store
from ray_asd.benchmarks import measure
from ray_asd.build import Output, steps
from ray_asd.config import Resources, Worker
from ray_asd.data import simulate
from ray_asd.data.listing import Source
from ray_asd.data.simulate import Fleet
from ray_asd.engine import connection
from ray_asd.engine.progress import silent
from ray_asd.scoring import metrics
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import usage
from ray_asd.tables import DOMAINS, Folder

BACKENDS: Mapping[str, tuple[usage.Features, tuple[str, ...]]] = {
    "default": (usage.SPECTRAL, ()),
    "no density": (usage.SPECTRAL, ("scoring.backend.density=none",)),
    "log-mel, cosine": (usage.LOG_MEL, ()),
}


@dataclass(frozen=True)
class Found:
    """Of one fleet and back-end: the official figure, the share of false alarms by domain, and all p-values."""

    figure: float
    false_alarms: dict[str, float]
    p_values: np.ndarray


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Fleets.")
@click.option("--train", default=54, show_default=True, help="Source training clips per machine.")
@click.option("--train-target", default=6, show_default=True, help="Target training clips per machine.")
@click.option("--test", default=10, show_default=True, help="Test clips per machine, domain and label.")
@click.option("--seconds", default=6.0, show_default=True, help="Of each clip.")
def main(seeds: int, train: int, train_target: int, test: int, seconds: float) -> None:
    """Score simulated fleets and count."""
    click.echo(measure.hardware("ray", "scipy"))
    header = ["fleet", "back-end", "hmean, %", *(f"false alarms {domain}, %" for domain in DOMAINS), "KS of p", "clips"]
    with connection.connected():
        for seed in range(seeds):
            fleet = Fleet(train_source=train, train_target=train_target, test=test, seconds=seconds, seed=seed)
            found = _measured(fleet, BACKENDS)
            of_source = replace(fleet, train_source=train + train_target - 1, train_target=1, test=30)
            uniform = _measured(of_source, BACKENDS)
            rows = [_row(seed, name, found[name], uniform[name]) for name in BACKENDS]
            click.echo(measure.table(header, rows) + "\n")


def _row(seed: int, name: str, found: Found, uniform: Found) -> list[str]:
    alarms = [f"{100 * found.false_alarms[domain]:.1f}" for domain in DOMAINS]
    statistic = stats.kstest(uniform.p_values, "uniform").statistic
    return [str(seed), name, f"{100 * found.figure:.1f}", *alarms, f"{statistic:.3f}", str(len(uniform.p_values))]


def _measured(fleet: Fleet, backends: Mapping[str, tuple[usage.Features, tuple[str, ...]]]) -> dict[str, Found]:
    with tempfile.TemporaryDirectory() as folder:
        simulate.write(fleet, store.join(folder, "fleet"), 2, lambda done, total: None)
        root = store.join(folder, "root")
        source = Source(store.join(folder, "fleet"), layout="dcase2023")
        clips = steps.ensure(ingest.step(source, Worker(), silent), root)
        return {name: _found(clips, root, *given) for name, given in backends.items()}


def _found(clips: Output, root: str, features: usage.Features, settings: Sequence[str]) -> Found:
    detector = enroll.step([usage.use(features, None, tuple(settings))], clips, silent)
    scores = steps.ensure(score.step(detector, clips, Resources(), silent), root).table(Folder.SCORES)
    normal = scores.filter(pa.compute.field("label") == "normal")
    alarms = {}
    for domain in DOMAINS:
        decisions = normal.filter(pa.compute.field("domain") == domain)["decision"].to_numpy()
        alarms[domain] = float(np.mean(decisions))
    of_source = normal.filter(pa.compute.field("domain") == "source")["p_value"].to_numpy()
    return Found(metrics.official_score(metrics.evaluate(scores, features)), alarms, of_source)


if __name__ == "__main__":
    main()
