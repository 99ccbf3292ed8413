"""How often healthy clips alarm, and how well faults are heard: detectors without weights on simulated fleets.

    python -m ray_asd.benchmarks.false_alarms

Per fleet and back-end: the official figure; the share of healthy test clips of each domain above thresholds that were
set, by leaving each training clip out in turn, for one in ten. And of all fleets together: how far the p-values of
healthy clips are from uniform (Kolmogorov and Smirnov), where all training clips but one are of the source domain, as
the clips asked about. The p-values of a machine share its calibration clips, so the limit that chance stays below in 19
of 20 is not that of independent ones: it is drawn from as many exchangeable scores.
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
from ray_asd.data.simulate import Fleet
from ray_asd.data.source import Source
from ray_asd.engine import connection
from ray_asd.engine.progress import silent
from ray_asd.scoring import metrics, scores
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import usage
from ray_asd.tables import DOMAINS, Folder

BACKENDS: Mapping[str, tuple[usage.Features, tuple[str, ...]]] = {
    "default": (usage.SPECTRAL, ()),
    "no density": (usage.SPECTRAL, ("scoring.backend.density=none",)),
    "log-mel, cosine": (usage.LOG_MEL, ()),
}


DRAWS = 2000  # of exchangeable scores
MACHINE = ("machine_type", "section")


@dataclass(frozen=True)
class Found:
    """Of one fleet and back-end: the official figure, the share of false alarms by domain, and of each machine its
    number of calibration clips and the p-values of its healthy source clips."""

    figure: float
    false_alarms: dict[str, float]
    p_values: list[tuple[int, np.ndarray]]


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Fleets.")
@click.option("--train", default=54, show_default=True, help="Source training clips per machine.")
@click.option("--train-target", default=6, show_default=True, help="Target training clips per machine.")
@click.option("--test", default=10, show_default=True, help="Test clips per machine, domain and label.")
@click.option("--train-uniform", default=240, show_default=True, help="Training clips where p-values are looked at.")
@click.option("--seconds", default=6.0, show_default=True, help="Of each clip.")
def main(seeds: int, train: int, train_target: int, test: int, train_uniform: int, seconds: float) -> None:
    """Score simulated fleets and count."""
    click.echo(measure.hardware("ray", "scipy"))
    header = ["fleet", "back-end", "hmean, %", *(f"false alarms {domain}, %" for domain in DOMAINS)]
    of_all: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in BACKENDS}
    with connection.connected():
        for seed in range(seeds):
            fleet = Fleet(train_source=train, train_target=train_target, test=test, seconds=seconds, seed=seed)
            found = _measured(fleet, BACKENDS)
            click.echo(measure.table(header, [_row(seed, name, found[name]) for name in BACKENDS]) + "\n")
            of_source = replace(fleet, train_source=train_uniform - 1, train_target=1, test=30)
            for name, uniform in _measured(of_source, BACKENDS).items():
                of_all[name] += uniform.p_values
    rows = [[name, *_uniformity(machines)] for name, machines in of_all.items()]
    click.echo(measure.table(["back-end", "KS of p", "chance stays below", "clips", "machines"], rows))


def _row(seed: int, name: str, found: Found) -> list[str]:
    alarms = [f"{100 * found.false_alarms[domain]:.1f}" for domain in DOMAINS]
    return [str(seed), name, f"{100 * found.figure:.1f}", *alarms]


def _uniformity(machines: Sequence[tuple[int, np.ndarray]]) -> list[str]:
    """Of the p-values of all machines: how far they are from uniform, and how far exchangeable scores' would be."""
    random = np.random.default_rng(0)

    def drawn() -> float:
        exchangeable = [
            scores.p_values(random.random(len(values)), random.random(calibration)) for calibration, values in machines
        ]
        return float(stats.kstest(np.concatenate(exchangeable), "uniform").statistic)

    values = np.concatenate([values for _, values in machines])
    limit = np.quantile([drawn() for _ in range(DRAWS)], 0.95)
    distance = stats.kstest(values, "uniform").statistic
    return [f"{distance:.3f}", f"{limit:.3f}", str(len(values)), str(len(machines))]


def _measured(fleet: Fleet, backends: Mapping[str, tuple[usage.Features, tuple[str, ...]]]) -> dict[str, Found]:
    with tempfile.TemporaryDirectory() as folder:
        simulate.write(fleet, store.join(folder, "fleet"), 2, lambda done, total: None)
        root = store.join(folder, "root")
        source = Source(store.join(folder, "fleet"), layout="dcase2023")
        clips = steps.ensure(ingest.step(source, Worker(), silent), root)
        return {name: _found(clips, root, *given) for name, given in backends.items()}


def _found(clips: Output, root: str, features: usage.Features, settings: Sequence[str]) -> Found:
    detector = steps.ensure(enroll.step([usage.use(features, None, tuple(settings))], clips, silent), root)
    scored = steps.ensure(score.step(detector, clips, Resources(), silent), root).table(Folder.SCORES)
    normal = scored.filter(pa.compute.field("label") == "normal")
    alarms = {}
    for domain in DOMAINS:
        decisions = normal.filter(pa.compute.field("domain") == domain)["decision"].to_numpy()
        alarms[domain] = float(np.mean(decisions))
    return Found(metrics.official_score(metrics.evaluate(scored, features)), alarms, _p_values(detector, normal))


def _p_values(detector: Output, normal: pa.Table) -> list[tuple[int, np.ndarray]]:
    calibration = detector.table(Folder.CALIBRATION).group_by(MACHINE).aggregate([([], "count_all")])
    found = []
    for machine in calibration.to_pylist():
        here = pa.compute.field("domain") == "source"
        for column in MACHINE:
            here &= pa.compute.field(column) == machine[column]
        found.append((machine["count_all"], normal.filter(here)["p_value"].to_numpy()))
    return found


if __name__ == "__main__":
    main()
