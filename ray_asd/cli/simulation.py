"""Recordings where one has none: a simulated data set, or a plant whose units begin to fail."""

from dataclasses import fields
from typing import Any

import click

from ray_asd import store
from ray_asd.cli.app import command, json_option
from ray_asd.cli.console import Progress, summary
from ray_asd.errors import UserError

_OPTIONS = {"train_source": "--train", "healthy": "--enrol-nights"}  # where a setting's name is another


@command("simulate plant --units 20 --nights 10 --workers 2")
@click.argument("out")
@click.option("--machines", metavar="A,B", help="Comma-separated machine types; all seven by default.")
@click.option("--train", "train_source", type=int, help="Source training clips per machine type; 990 by default.")
@click.option("--train-target", type=int, help="Target training clips per machine type; 10 by default.")
@click.option("--test", type=int, help="Test clips per machine type, domain and label; 50 by default.")
@click.option("--units", type=int, help="Machines of a plant that is recorded every night, in place of a data set.")
@click.option("--nights", type=int, help="Of the plant; 20 by default.")
@click.option("--clips", type=int, help="Per unit and night; 8 by default.")
@click.option("--enrol-nights", "healthy", type=int, help="Healthy nights before these; 8 by default.")
@click.option("--faulty", type=float, help="Share of units that begin to fail on one of the nights; 0.1 by default.")
@click.option("--growth", type=int, help="Nights from a fault's first to its worst; 4 by default.")
@click.option("--seconds", type=float, help="Length of a clip; 10 by default, 2 of a plant.")
@click.option("--severity", type=float, help="Of the faults at their worst, 0 healthy; 1 by default, 3 of a plant.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Processes.")
@json_option
def simulate(out: str, machines: str | None, workers: int, as_json: bool, **options: Any) -> None:
    """Write recordings of simulated machines to OUT (a local path or s3://).

    A data set in the DCASE 2023 layout; with --units a folder for each night of a plant, one for enrolment, and the
    truth as faults.csv.
    """
    from ray_asd.data import simulate as data_set
    from ray_asd.data import units as plants

    with summary("simulate", None, as_json) as result:
        given = {name: value for name, value in options.items() if value is not None}
        if machines:
            given["machines"] = tuple(name.strip() for name in machines.split(","))
        progress, out = Progress(), store.absolute(out)

        def told(done: int, total: int) -> None:
            progress("simulate", done, total)

        if "units" in given:
            plant = plants.Plant(**_of(plants.Plant, given, "a data set without --units"))
            store.check_writable(out)
            count = plants.write(plant, out, workers, told)
            result.outputs["faults"] = store.join(out, plants.FAULTS)
        else:
            fleet = data_set.Fleet(**_of(data_set.Fleet, given, "a plant, with --units"))
            store.check_writable(out)
            count = data_set.write(fleet, out, workers, told)
        result.outputs["dataset"], result.counts = out, {"clips": count}


def _of(settings: type, given: dict[str, Any], others: str) -> dict[str, Any]:
    """
    Raises:
        UserError: one of those ``given`` is of ``others`` alone.
    """
    known = [field.name for field in fields(settings)]
    for name in given:
        if name not in known:
            options = ", ".join(_option(own) for own in known if own != "first")
            raise UserError(f"{_option(name)} is a setting of {others}; allowed here: {options}")
    return given


def _option(setting: str) -> str:
    return _OPTIONS.get(setting, f"--{setting.replace('_', '-')}")
