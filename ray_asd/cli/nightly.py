"""The night: a fleet's new recordings scored under what is current, by machine; and whether that has happened."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

from ray_asd import reasons, store
from ray_asd.cli import nights
from ray_asd.cli.app import command, dry_run_option, existing, json_option, out_option, resources, set_option
from ray_asd.cli.console import Progress, Result, planned, summary
from ray_asd.cli.detection import most_unscored
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError

if TYPE_CHECKING:
    from ray_asd.stages.fleet.nightly import Watch
    from ray_asd.stages.fleet.revisions import Fleet

WEBHOOK_VARIABLE = "RAY_ASD_WEBHOOK"  # a URL that holds a key is no argument
_LOOKED_AT = 10  # nights before one that is missing


@command("nightly --registry s3://plant/registry --source 's3://plant/in/{night:%Y-%m-%d}' --out s3://plant/fleet")
@click.option("--registry", metavar="URI", help="What scores: a registry's current version, or REGISTRY@v3.")
@click.option("--source", metavar="URI", help="Where recordings arrive; each night's own place by {night:%Y-%m-%d}.")
@click.option("--layout", default="auto", show_default=True, help=f"How files are named: auto, {', '.join(LAYOUTS)}.")
@click.option("--pattern", metavar="P", help="Of paths: {machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav")
@click.option("--machine-type", help="Of a flat folder, or where the pattern does not say it.")
@click.option("--dataset", help="First part of every clip_id; by default the source's own name.")
@click.option(
    "--accept", type=click.Choice(reasons.ACCEPTABLE), multiple=True, help="Take what is rejected for this reason."
)
@click.option("--night", "asked", metavar="DATE", help="By default the last one that has ended, with --grace.")
@click.option("--grace", default="45m", show_default=True, metavar="TIME", help="For recordings to arrive.")
@click.option("--day-starts", default="00:00", show_default=True, metavar="HH:MM", help="When a night begins, in UTC.")
@click.option(
    "--look-back", type=click.IntRange(0, 30), default=1, show_default=True, help="Nights before, for late recordings."
)
@click.option("--shadow", metavar="V,V", help="Versions that score beside it and alert nobody.")
@click.option("--compare", metavar="VERSION", help="Only print what the nights with this shadow say beside it.")
@click.option("--rescore", metavar="FROM..TO", help="Only score these nights anew, of the recordings that they have.")
@click.option("--check", is_flag=True, help="Only say whether the night was scored and its machines were heard.")
@click.option("--rate", default=0.1, show_default=True, help="Share of false ones among alarms.")
@click.option("--min-nights", default=10, show_default=True, help="A machine's own before they are its standard.")
@click.option("--persistence", default="2/3", show_default=True, metavar="M/N", help="Alarms in nights for an alert.")
@click.option("--webhook", metavar="URL", envvar=WEBHOOK_VARIABLE, help="Tell what becomes of alerts by HTTP POST.")
@click.option("--max-unscored", metavar="N|P%", help="End with exit code 3 when more clips could not be scored.")
@click.option("--max-rejects", type=click.IntRange(0), help="End with exit code 3 when more files are rejected.")
@click.option("--max-silent", type=click.IntRange(0), help="End with exit code 3 when more machines were not heard.")
@out_option
@set_option
@dry_run_option
@json_option
def nightly(root: str, dry_run: bool, check: bool, as_json: bool, **options: Any) -> None:
    """Score the recordings of a night that are new, decide on each machine, and make it a night of the fleet."""
    root = store.absolute(root)
    reads_only = dry_run or check or options["compare"] is not None
    with summary("nightly", None if reads_only else root, as_json) as result:
        chosen = [name for name, given in (("--check", check), *_modes(options)) if given]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} do not go together; allowed: one of them")
        if check:
            _check(result, root, **options)
        elif options["compare"] is not None:
            _compare(result, existing(root), options["compare"])
        elif options["rescore"] is not None:
            _rescore(result, root, dry_run, **options)
        else:
            _night(result, root, dry_run, **options)


def _modes(options: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(f"--{name}", options[name] is not None) for name in ("compare", "rescore")]


def _night(result: Result, root: str, dry_run: bool, **options: Any) -> None:
    from ray_asd.stages.fleet import nightly as stage

    fleet, watch = _fleet(root, **options), _watch(root, **options)
    asked = _asked(watch, options["asked"])
    most_unscored(options["max_unscored"], 0)
    tell_events = nights.events(fleet, options["webhook"])
    if dry_run:
        _plan(fleet, watch, asked)
        return
    ended = stage.run(fleet, watch, asked, Progress(), _say)
    for line in nights.told(fleet, asked, ended):
        _say(line)
    for line in nights.pages(fleet, ended):
        _say(line)
    if ended.night:
        nights.note(result, fleet, ended.night)
        result.reused = ended.reused
        result.gate = nights.gate(ended.night, **options)
        for line in tell_events(ended.night):
            _say(line)


def _fleet(
    root: str,
    registry: str | None,
    shadow: str | None,
    rate: float,
    min_nights: int,
    persistence: str,
    overrides: tuple[str, ...],
    **others: Any,
) -> "Fleet":
    from ray_asd.scoring.alerts import Persistence
    from ray_asd.scoring.rules import Settings
    from ray_asd.stages.fleet import naming
    from ray_asd.stages.fleet.revisions import Fleet, Rules

    if not registry:
        raise UserError("--registry is needed: a registry for its current version, REGISTRY@v3, or an output of enroll")
    m, _, n = persistence.partition("/")
    if not (m.isdigit() and n.isdigit()):
        raise UserError(f"--persistence {persistence!r}; allowed: M/N such as 2/3, an alert's alarms among nights")
    rules = Rules(Settings(rate, min_nights), Persistence(int(m), int(n)))
    versions = tuple(sorted({name.strip() for name in (shadow or "").split(",") if name.strip()}))
    chosen = resources(overrides, "a detector says how it scores")
    fleet = Fleet(root, store.absolute(registry), rules, versions, chosen)
    naming.check(fleet.registry, versions)
    return fleet


def _watch(
    root: str,
    source: str | None,
    layout: str,
    pattern: str | None,
    machine_type: str | None,
    dataset: str | None,
    accept: tuple[str, ...],
    look_back: int,
    **options: Any,
) -> "Watch":
    from ray_asd.data.source import Source
    from ray_asd.stages.fleet.dates import Arrivals
    from ray_asd.stages.fleet.nightly import Watch
    from ray_asd.stages.recordings.ingest import Options

    if not source:
        raise UserError("--source is needed: where recordings arrive, such as 's3://plant/in/{night:%Y-%m-%d}'")
    place = store.absolute(source)
    if place == root:
        raise UserError(f"--out {root} is SOURCE itself; allowed: any other place, also one below it")
    given = Source(place, layout, pattern, machine_type, split="test", dataset=dataset)
    return Watch(Arrivals(given), _calendar(**options), look_back, Options(accept=tuple(sorted(set(accept)))))


def _calendar(grace: str, day_starts: str, **others: Any) -> Any:
    from ray_asd.stages.fleet import dates

    return dates.Calendar(dates.time_of_day(day_starts), dates.span(grace))


def _asked(watch: "Watch", night: str | None) -> date:
    from ray_asd.stages.fleet import dates

    return dates.night(night) if night else watch.calendar.last(datetime.now(UTC))


def _plan(fleet: "Fleet", watch: "Watch", asked: date) -> None:
    """What a run would do now."""
    from ray_asd.build import steps
    from ray_asd.build.estimates import estimates
    from ray_asd.stages.fleet import manifests
    from ray_asd.stages.fleet import nightly as stage

    for step, _ in stage.arrivals(fleet, watch, asked):
        for estimate in estimates(steps.plan(step, fleet.uri), fleet.uri):
            click.echo(planned(estimate))
    for day in watch.days(asked):
        last = manifests.newest(fleet.uri, day)
        there = f"revision {last.revision} by {last.version or last.detector}" if last else "no revision yet"
        click.echo(f"night {day}: {there}; what is new is scored by {last.detector if last else fleet.detector.uri}")


def _rescore(result: Result, root: str, dry_run: bool, rescore: str, **options: Any) -> None:
    from ray_asd.stages.fleet import dates, manifests
    from ray_asd.stages.fleet import nightly as stage

    days = dates.nights(rescore)
    fleet = _fleet(existing(root), **options)
    if dry_run:
        for last in manifests.all_newest(root, days):
            there = "done  " if last.detector == fleet.detector.uri else "to do "
            click.echo(f"{there} night {last.night}: revision {last.revision} by {last.version or last.detector}")
        return
    made = stage.rescore(fleet, days, Progress(), _say)
    gates = [nights.gate(one, **options) for one in made]
    for one in made:
        _say(f"night {one.night}: revision {one.revision} by {one.version or one.detector}")
    result.outputs = {f"night {one.night}": store.join(root, one.output) for one in made}
    result.counts, result.reused = {"nights": len(made)}, not made
    result.gate = "; ".join(gate for gate in gates if gate) or None


def _check(result: Result, root: str, asked: str | None, max_silent: int | None, **options: Any) -> None:
    """Whether the night that should be there is, and its machines were heard."""
    from ray_asd.stages.fleet import dates, manifests

    calendar = _calendar(**options)
    day = dates.night(asked) if asked else calendar.last(datetime.now(UTC))
    known = manifests.dates(existing(root))
    last = manifests.newest(root, day)
    if last is None:
        before = manifests.all_newest(root, [one for one in known if one < day][-_LOOKED_AT:])
        since = f"the last one is {before[-1].night}" if before else "there is none before it either"
        result.gate = f"night {day} was not scored: {since}"
        return
    result.outputs, result.counts = {"night": store.join(root, last.output)}, last.counts
    for line in nights.missed(root, last):
        _say(line)
    if last.counts["silent"] > (max_silent or 0):
        result.gate = f"night {day}: {last.counts['silent']} machines were not heard"
    elif not last.counts["clips"]:
        result.gate = f"night {day} has no recordings"


def _compare(result: Result, root: str, version: str) -> None:
    from ray_asd.stages.fleet import shadows

    found = shadows.compared(root, version)
    for line in found.lines():
        click.echo(line, err=True)
    result.counts = {"nights": len(found.nights)}


def _say(line: str) -> None:
    click.echo(line, err=True)
