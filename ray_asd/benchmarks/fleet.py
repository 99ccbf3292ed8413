"""Whether the nightly job finds the machines that fail, and how often it cries wolf: a simulated plant night by night.

    python -m ray_asd.benchmarks.fleet --units 200 --nights 20 --seeds 0,1,2 --out /data/fleet

Per seed: the plant's healthy nights are enrolled with spectral features and the default back-end, the detector is
released, and each night is run as by ``ray-asd nightly`` with its defaults. What the alerts say is held against what
the plant knows. An alert is true where its machine has begun to fail on the night on which it begins; it is in time
up to three nights after the fault is as bad as it gets.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import click
from scipy import stats

from ray_asd import store
from ray_asd.benchmarks import measure
from ray_asd.build import Output, steps
from ray_asd.cli.console import Progress as Shown
from ray_asd.config import Resources
from ray_asd.data import units
from ray_asd.data.layouts import ONLY_SECTION
from ray_asd.data.units import Failure, Plant
from ray_asd.engine import connection
from ray_asd.engine.progress import Progress
from ray_asd.scoring.alerts import Machine
from ray_asd.scoring.nights import BY_CLIPS, BY_NIGHTS
from ray_asd.stages import demo_nights
from ray_asd.stages.fleet import alerting, deciding, manifests
from ray_asd.stages.fleet.revisions import Fleet, Rules
from ray_asd.tables import SCORES, Folder

IN_TIME = timedelta(3)  # after a fault is as bad as it gets
LOW = 0.05  # p-values up to which one healthy machine-night in twenty should have


@dataclass
class Found:
    """What became of one plant, or of several: counts, the kinds of faults that were missed, seconds by part."""

    counts: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Found") -> "Found":
        return Found(self.counts + other.counts, self.missed + other.missed, self.seconds + other.seconds)

    def __getitem__(self, name: str) -> int:
        return self.counts[name]

    def low_share(self, *rules: str) -> float:
        """The share of healthy machine-nights judged by one of ``rules`` whose p-value is ``LOW``."""
        judged, low = (sum(self[f"{what} by {rule}"] for rule in rules) for what in ("healthy", "low"))
        return low / max(judged, 1)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds of the block."""
        started = time.perf_counter()
        yield
        self.seconds[what] += round(time.perf_counter() - started)


@click.command()
@click.option("--units", "count", default=200, show_default=True, help="Machines.")
@click.option("--nights", default=20, show_default=True)
@click.option("--clips", default=8, show_default=True, help="Per machine and night.")
@click.option("--severity", default=Plant.severity, show_default=True, help="Of faults at their worst.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Plants.")
@click.option("--out", help="Where everything goes and stays, a local path or s3://; else it is removed.")
def main(count: int, nights: int, clips: int, severity: float, seeds: str, out: str | None) -> None:
    """Simulate plants, run their nights, and count."""
    click.echo(measure.hardware("ray", "scipy"))
    rows, total = [], Found()
    with ExitStack() as stack:
        place = store.absolute(out) if out else stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(connection.connected())
        for seed in map(int, seeds.split(",")):
            plant = Plant(units=count, nights=nights, clips=clips, severity=severity, seed=seed)
            found = measured(plant, store.join(place, f"seed{seed}"), Rules(), Shown())
            total += found
            rows.append([str(seed), *_row(found)])
            click.echo(measure.table(["plant", *_HEADER], [*rows, ["all", *_row(total)]]) + "\n")
    for what, counted in (("missed", total.missed), ("seconds", total.seconds)):
        click.echo(f"{what}: {', '.join(f'{name} {number}' for name, number in counted.items()) or 'none'}")


_HEADER = (
    "found in time",
    "false alerts",
    "their share, 95%",
    "false alarms",
    "low p",
    "by nights",
    "by clips",
    "scored",
    "twice",
)


def _row(found: Found) -> list[str]:
    alerts, false = found["alerts"], found["false alerts"]
    low, high = stats.binomtest(false, alerts).proportion_ci() if alerts else (0.0, 1.0)
    return [
        f"{found['in time']} of {found['failing']}",
        f"{false} of {alerts}",
        f"[{low:.2f}, {high:.2f}]",
        f"{found['false alarms']} of {found['alarms']}",
        *(f"{found.low_share(*rules):.3f}" for rules in ((BY_NIGHTS, BY_CLIPS), (BY_NIGHTS,), (BY_CLIPS,))),
        f"{found['scored']:,} of {found['clips']:,}",
        str(found["twice"]),
    ]


def measured(plant: Plant, folder: str, rules: Rules, progress: Progress) -> Found:
    """What becomes of ``plant`` below ``folder``, where Ray is connected."""
    recordings, root, releases = (store.join(folder, name) for name in ("plant", "root", "registry"))
    fleet, found = Fleet(store.join(folder, "fleet"), releases, rules), Found()
    with found.timed("simulated"):
        units.write(plant, recordings, 2, lambda done, total: progress("simulate", done, total))
    with found.timed("enrolled"):
        demo_nights.released(recordings, releases, Resources(), lambda step: steps.ensure(step, root), progress)
    with found.timed("nights"):
        for _ in demo_nights.nights(fleet, plant, recordings, progress):
            pass
    _judge(found, plant, fleet)
    return found


def _judge(found: Found, plant: Plant, fleet: Fleet) -> None:
    """Count what the nights of ``fleet`` say of ``plant``."""
    failing: dict[Machine, Failure] = {}
    for one in units.faults(plant):
        machine_type, machine_id = plant.machine(one.unit)
        failing[machine_type, ONLY_SECTION, machine_id] = one
    outputs = [manifests.output(fleet.uri, one) for one in manifests.all_newest(fleet.uri, plant.dates)]
    for output in outputs:
        for row in deciding.decisions(output).to_pylist():
            _count(found, row, failing)
    _account(found, plant, outputs)
    begun: dict[Machine, date] = {}
    for alert in alerting.current(fleet.uri):
        first = alert.nights[min(fleet.rules.persistence.m, alert.count) - 1]  # on which it became one
        found.counts["alerts"] += 1
        if alert.machine in failing and failing[alert.machine].first <= first:
            begun[alert.machine] = min(first, begun.get(alert.machine, first))
        else:
            found.counts["false alerts"] += 1
    for machine, one in failing.items():
        found.counts["failing"] += 1
        if machine in begun and begun[machine] <= one.nominal + IN_TIME:
            found.counts["in time"] += 1
        else:
            found.missed[f"{machine[0]} {one.kind}"] += 1


def _count(found: Found, decision: Mapping[str, Any], failing: Mapping[Machine, Failure]) -> None:
    one = failing.get((decision["machine_type"], decision["section"], decision["machine_id"]))
    is_healthy = one is None or decision["night"] < one.first
    found.counts["alarms"] += bool(decision["alarm"])
    found.counts["false alarms"] += bool(decision["alarm"]) and is_healthy
    if is_healthy and decision["rule"]:
        found.counts[f"healthy by {decision['rule']}"] += 1
        found.counts[f"low by {decision['rule']}"] += decision["p_value"] <= LOW


def _account(found: Found, plant: Plant, outputs: Sequence[Output]) -> None:
    """No clip may be lost or scored twice."""
    known: set[tuple[str, ...]] = set()
    for output in outputs:
        scores = output.table(Folder.SCORES, SCORES, ["machine_id", "clip_id", "content_hash"])
        known |= set(zip(*(column.to_pylist() for column in scores.columns), strict=True))
        found.counts["scored"] += len(scores)
        found.counts["unscored"] += output.marker.counts["unscored"]
    found.counts["twice"] = found["scored"] - len(known)
    found.counts["clips"] = plant.units * plant.nights * plant.clips


if __name__ == "__main__":
    main()
