"""The morning after a night: its page, and the same in the terminal."""

from dataclasses import dataclass
from datetime import date

import click

from ray_asd import store
from ray_asd.cli.app import command, existing, json_option
from ray_asd.cli.console import summary
from ray_asd.report.page import Options

PAGES, LATEST = "pages", "latest.html"


@dataclass(frozen=True)
class Written:
    """Where the page of a night is, and what the terminal is told."""

    page: str
    latest: str | None
    digest: list[str]
    machines: int


def write(fleet: str, night: date | None = None, out: str | None = None, options: Options | None = None) -> Written:
    """Write the page of that night, by default the last one, into ``out``, by default below the fleet.

    The page of the last night has a second name, which stays.

    Raises:
        UserError: there is no such night.
    """
    from ray_asd.report import morning as report
    from ray_asd.stages.fleet import manifests, morning

    found = morning.collect(fleet, night)
    place = out or store.join(fleet, PAGES)
    page = report.page(found, options)
    uri, latest = store.join(place, f"{found.night}.html"), store.join(place, LATEST)
    store.write(uri, page)
    is_last = found.night == manifests.dates(fleet)[-1]
    if is_last:
        store.write(latest, page)
    digest = report.digest(found)
    return Written(uri, latest if is_last else None, digest, found.counts.get("machines", 0))


@command("morning s3://plant/fleet --night 2026-11-25")
@click.argument("fleet", metavar="FLEET")
@click.option("--night", "asked", metavar="DATE", help="By default the last one that was scored.")
@click.option("--out", metavar="DIR", help="Where the page goes; by default FLEET/pages.")
@click.option(
    "--clips", "count", type=click.IntRange(0, 20), default=10, show_default=True, help="Alerts to listen to."
)
@click.option("--no-audio", is_flag=True, help="Leave the recordings' players out.")
@json_option
def morning(fleet: str, asked: str | None, out: str | None, count: int, no_audio: bool, as_json: bool) -> None:
    """Write the page of a night of FLEET: which machines sounded wrong, why, and what did not run."""
    from ray_asd.stages.fleet import dates

    with summary("morning", None, as_json) as result:
        place = existing(fleet)
        night = dates.night(asked) if asked else None
        if out:
            out = store.absolute(out)
            store.check_writable(out)
            store.tag_outputs(out)
        written = write(place, night, out, Options(count, not no_audio))
        for line in written.digest:
            click.echo(line, err=True)
        result.outputs = {"page": written.page} | ({"latest": written.latest} if written.latest else {})
        result.counts = {"machines": written.machines}
