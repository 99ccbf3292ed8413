"""Recordings: take in one's own."""

from collections import Counter
from typing import Any

import click

from ray_asd import reasons, store, tables
from ray_asd.build import Output
from ray_asd.cli.app import command, dry_run_option, json_option, out_option, resources, set_option
from ray_asd.cli.console import Progress, bring, summary
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import UserError


@command("ingest fleet --out runs")
@click.argument("source", metavar="SRC")
@out_option
@click.option("--layout", default="auto", show_default=True, help=f"How files are named: auto, {', '.join(LAYOUTS)}.")
@click.option("--pattern", metavar="P", help="Of paths: {machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav")
@click.option("--machine-type", help="Of a flat folder, or where the pattern does not say it.")
@click.option("--split", type=click.Choice(tables.SPLITS), help="Where neither folder, CSV nor pattern says it.")
@click.option("--truth", metavar="URI", help="Labels of anonymous clips: the organisers' list or evaluator folder.")
@click.option("--attributes", metavar="URI", help="A folder with the attributes that file names hide.")
@click.option("--dataset", help="First part of every clip_id; the source's own name by default.")
@click.option("--pack", is_flag=True, help="Copy the recordings into few large files, which later stages then read.")
@click.option("--reject-duplicates", is_flag=True, help="Reject recordings with the content of another one.")
@click.option(
    "--accept",
    type=click.Choice(reasons.ACCEPTABLE),
    multiple=True,
    help="Take what is rejected for this reason: streamed recordings do not say how long they are.",
)
@click.option("--max-rejects", type=click.IntRange(0), help="End with exit code 3 when more files are rejected.")
@set_option
@dry_run_option
@json_option
def ingest(
    source: str,
    root: str,
    pack: bool,
    reject_duplicates: bool,
    accept: tuple[str, ...],
    max_rejects: int | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Check every recording below SRC (a folder, zip or CSV file, local or s3://) and write CLIPS and REJECTS."""
    from ray_asd.data.source import Source
    from ray_asd.stages.recordings import ingest as stage

    root = store.absolute(root)
    with summary("ingest", None if dry_run else root, as_json) as result:
        treatment = stage.Options(pack, reject_duplicates, tuple(sorted(set(accept))))
        for beside in ("truth", "attributes"):
            options[beside] = options[beside] and store.absolute(options[beside])
        if root == store.absolute(source):
            raise UserError(f"--out {root} is SRC itself; allowed: any other place, also one below it")
        worker = resources(overrides, "no recipe is used").ingest
        step = stage.step(Source(store.absolute(source), **options), worker, Progress(), treatment)
        output = bring(result, root, step, "clips", "rejects", dry_run=dry_run)
        if output is None:
            return
        if not output.reused:
            click.echo(f"layout {output.marker.summary['why']}", err=True)
            decoded, known = (output.marker.counts.get(kind, 0) for kind in ("decoded", "taken_over"))
            click.echo(f"{decoded} recordings decoded, {known} known from an earlier ingest", err=True)
            dead = output.marker.counts.get("dead_channels", 0)
            if dead:
                click.echo(f"{dead} recordings have a channel without sound: dead_channels in CLIPS", err=True)
        result.gate = _gate(output, max_rejects)


def _gate(ingested: Output, max_rejects: int | None) -> str | None:
    """Why what was ingested is not good enough to go on with, where it is not."""
    counts = ingested.marker.counts
    rejects = counts["rejects"]
    if not counts["clips"]:
        return f"no recording was taken: {_first_rejects(ingested) or 'there is none'}"
    if max_rejects is not None and rejects > max_rejects:
        return f"{rejects} files were rejected; --max-rejects allows {max_rejects}"
    return None


def _first_rejects(ingested: Output) -> str:
    """How many were rejected for which reason, with the first of each."""
    rows = ingested.table(tables.Folder.REJECTS, tables.REJECTS).sort_by("uri").to_pylist()
    first = {row["reason"]: row for row in reversed(rows)}
    times = Counter(row["reason"] for row in rows)
    return "; ".join(
        f"{reason} {count} (the first is {first[reason]['uri']}: {first[reason]['detail']})"
        for reason, count in times.most_common()
    )
