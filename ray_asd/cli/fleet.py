"""Releases: what is current in a registry, and what it takes to become that."""

from typing import TYPE_CHECKING, Any

import click

from ray_asd import build, store
from ray_asd.build import Output
from ray_asd.cli.app import command, dry_run_option, json_option, resources, set_option
from ray_asd.cli.console import Progress, Result, bring, summary
from ray_asd.errors import UserError

if TYPE_CHECKING:
    from ray_asd.stages.fleet.registry import Change, Version

note_option = click.option("--note", default="", help="Why, for the registry's history.")
who_option = click.option("--by", "who", metavar="NAME", help="Who does it, for the history; by default USER@HOST.")


@command("release --detector runs/enroll/spectral-0123456789ab --to s3://plant/registry --note 'new pumps'")
@click.option("--detector", metavar="URI", required=True, help="An output of enroll, or REGISTRY@v3.")
@click.option("--to", "place", metavar="REGISTRY", required=True, help="The registry: a local path or s3://.")
@click.option("--clips", metavar="URI", help="CLIPS with labels, which it and the current version both score first.")
@click.option("--out", "root", metavar="ROOT", help="With --clips: where the SCORES of both are kept.")
@click.option("--metrics", metavar="URI", help="METRICS of its SCORES, to be told with the version.")
@click.option("--candidate", is_flag=True, help="Make it a version, but not the current one.")
@click.option("--force", is_flag=True, help="Release it although it is worse than the current version.")
@note_option
@who_option
@set_option
@dry_run_option
@json_option
def release(detector: str, place: str, root: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Put a detector into a registry as a new version, and make it the current one."""
    place = store.absolute(place)
    with summary("release", None if dry_run else place, as_json) as result:
        _release(result, detector, place, root and store.absolute(root), dry_run, **options)


def _release(
    result: Result,
    detector: str,
    place: str,
    root: str | None,
    dry_run: bool,
    clips: str | None,
    metrics: str | None,
    candidate: bool,
    force: bool,
    note: str,
    who: str | None,
    overrides: tuple[str, ...],
) -> None:
    from ray_asd.stages.fleet import registry
    from ray_asd.stages.fleet import release as releases

    if bool(clips) != bool(root):
        raise UserError("--clips and --out go together: where the SCORES of the candidate and of the current one lie")
    given = registry.detector(detector)
    known = releases.figures(build.resolve(metrics, "evaluate"), given) if metrics else None
    seen = registry.newest(place) if registry.is_registry(place) else None
    releases.check(given)
    compared = None
    if seen and clips and root:
        compared = _compared(result, given, place, seen, clips, root, overrides, dry_run)
        if compared and compared["worse"] and not force:
            result.gate = f"worse than {seen.version}: {'; '.join(compared['worse'])}; not released without --force"
            return
    if dry_run:
        click.echo(f"to do  {place}: a version of {given.uri}{'' if candidate else ', to be current'}")
        return
    forced = bool(force and compared and compared["worse"])
    known = known or _own_figure(compared)
    order = releases.Order(who or registry.whoever(), note, seen, known, compared, forced)
    version = releases.add(given, place, order)
    change = None if candidate else releases.make_current(version, place, order)
    result.outputs["release"] = version.uri
    result.counts, result.reused = {"files": len(version.marker.files)}, change is None and not candidate
    _tell(version, change, candidate)


def _compared(
    result: Result,
    given: Output,
    place: str,
    seen: "Change",
    clips: str,
    root: str,
    overrides: tuple[str, ...],
    dry_run: bool,
) -> dict[str, Any] | None:
    """What the gate finds, printed; None where it is only planned or the candidate is what is current."""
    from ray_asd.stages.fleet import gate, registry

    current = registry.found(place, seen.version)
    if current.uri == given.uri:
        return None
    chosen = resources(overrides, "a detector says how it scores")
    step = gate.step(given, current, build.resolve(clips, "ingest"), chosen, Progress())
    output = bring(result, root, step, "gate", dry_run=dry_run)
    if output is None:
        return None
    found = output.marker.summary
    for line in _side_by_side(found, seen.version):
        click.echo(line, err=True)
    return {"uri": output.uri, **found}


def _side_by_side(found: dict[str, Any], current: str) -> list[str]:
    from ray_asd.scoring.promotion import Figure

    rows: list[tuple[str, ...]] = [("", "candidate", current)]
    rows.append(("score", str(Figure(**found["candidate"])), str(Figure(**found["current"]))))
    for domain, alarms in found["false_alarms"].items():
        shares = [f"{alarms[name]} of {alarms['clips']}" for name in ("candidate", "current")]
        rows.append(("false alarms" + (f", {domain}" if domain != "all" else ""), *shares))
    lines = [f"{name:22}{ours:26}{theirs}".rstrip() for name, ours, theirs in rows]
    difference = str(Figure(**found["difference"])) if not found["why_no_score"] else found["why_no_score"]
    return [*lines, f"{'difference':22}{difference}"]


def _own_figure(compared: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the gate found of the candidate alone, in the words of METRICS."""
    if not compared or compared["candidate"]["value"] is None:
        return None
    figure = compared["candidate"]
    return {"uri": compared["uri"], "score": figure["value"], "low": figure["low"], "high": figure["high"]}


def _tell(version: Output, change: "Change | None", candidate: bool) -> None:
    name = store.name(version.uri)
    if candidate:
        said = f"{name} is a version, not the current one"
    elif change is None:
        said = f"{name} is current already"
    else:
        said = f"{name} is current" + (f", {change.before} was before" if change.before else "")
        if change.before and not change.compared:
            said += "; they were not compared (--clips)"
    click.echo(said, err=True)


@command("rollback s3://plant/registry --note 'cries wolf on pumps'")
@click.argument("place", metavar="REGISTRY")
@click.option("--to", metavar="VERSION", help="By default the one that was current before.")
@note_option
@who_option
@json_option
def rollback(place: str, to: str | None, note: str, who: str | None, as_json: bool) -> None:
    """Make an earlier version of REGISTRY the current one again."""
    from ray_asd.stages.fleet import registry

    with summary("rollback", None, as_json) as result:
        place = registry.opened(place)
        change = registry.rollback(place, to, who or registry.whoever(), note)
        result.outputs["release"] = registry.folder_of(place, change.version)
        click.echo(f"{change.version} is current again, {change.before} was before", err=True)


def list_versions(place: str, as_json: bool, result: Result) -> None:
    """The versions of a registry, and its history, oldest first."""
    from ray_asd.stages.fleet import registry

    known, last = registry.versions(place), registry.newest(place)
    if as_json:
        result.outputs = {one.name: registry.folder_of(place, one.name) for one in known if not one.problem}
        if last:
            result.outputs["current"] = registry.folder_of(place, last.version)
        return
    for one in known:
        mark = "current" if last and one.name == last.version else ""
        click.echo(f"{one.name:5} {mark:8} {_described(one)}".rstrip())
    for change in registry.history(place):
        how = f"{'forced ' if change.forced else ''}{change.action} of {change.version}"
        how += f" after {change.before}" if change.before else ""
        why = f": {change.note}" if change.note else ""
        click.echo(f"{change.when:%Y-%m-%d %H:%M}  {how} by {change.who}{why}")


def _described(version: "Version") -> str:
    if version.problem or not version.release:
        return f"not usable: {version.problem}"
    made = version.release
    score = (made.metrics or {}).get("score")
    figure = "" if score is None else f"  score {100 * score:.2f}"
    return f"{made.when:%Y-%m-%d %H:%M}  {made.provenance['system']}{figure}  from {made.source}  by {made.who}"
