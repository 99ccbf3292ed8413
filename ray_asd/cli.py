"""The command line: parse, call one stage, say what was written. No logic of the method lives here.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 done but more files rejected than allowed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import click

from ray_asd import __version__, archive, build, config, live, report, storage, tables
from ray_asd import grid as grids
from ray_asd.console import Progress, bring, run, summary
from ray_asd.data.years import LAYOUTS
from ray_asd.errors import StageError, UserError
from ray_asd.scoring.protocols import CHOICES as PROTOCOLS


class _InOrderOfUse(click.Group):
    """Help lists the commands as they stand below, not by letter."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrderOfUse, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def cli() -> None:
    """Anomalous sound detection with large pre-trained audio models, as distributed batch jobs on Ray."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``ray-asd`` and of the jobs."""
    run(cli, "ray-asd", arguments)


def _command(example: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command named by the first word of its example, which its help shows on one line of its own."""
    return cli.command(example.split()[0], epilog=f"\b\nExample: ray-asd {example}")


_json = click.option("--json", "as_json", is_flag=True, help="Print one machine-readable summary line last on stdout.")
_out = click.option("--out", "root", metavar="ROOT", required=True, help="Where outputs live: a local path or s3://.")
_dry_run = click.option("--dry-run", is_flag=True, help="Print what would be done, where and on what; do nothing.")
_clips = click.option("--clips", metavar="URI", required=True, help="CLIPS: an output of ingest.")
_set = click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one setting; repeatable.")
_model = click.option("--model", metavar="URI", required=True, help="An output of train, or the word floor.")
_recipe_for_use = click.option("--recipe", help="Take inference, scoring and resources from this recipe.")


@_command("demo --out ray_asd_demo")
@click.option("--out", "root", metavar="DIR", default="ray_asd_demo", show_default=True, help="Where everything goes.")
@click.option("--seed", default=0, show_default=True, help="Of the fleet and of the training.")
@_set
@_json
def demo(root: str, seed: int, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run everything once on a simulated fleet: no download, no GPU, a few minutes."""
    from ray_asd.stages import demo as stage

    root = storage.absolute(root)
    with summary("demo", root, as_json) as result:
        done = stage.run(root, seed, overrides, Progress())
        result.outputs, result.reused = done.outputs, done.reused
        click.echo(done.table, err=as_json)


@_command("simulate fleet --machines fan,valve --train 100 --test 20")
@click.argument("out")
@click.option("--machines", metavar="A,B", help="Comma-separated machine types; all seven by default.")
@click.option("--train", "train_source", default=990, show_default=True, help="Source training clips per machine.")
@click.option("--train-target", default=10, show_default=True, help="Target training clips per machine.")
@click.option("--test", default=50, show_default=True, help="Test clips per machine, domain and label.")
@click.option("--seconds", default=10.0, show_default=True, help="Length of a clip.")
@click.option("--severity", default=1.0, show_default=True, help="Of the faults: 0 healthy, 1 nominal.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Processes.")
@_json
def simulate(out: str, machines: str | None, workers: int, as_json: bool, **fleet: Any) -> None:
    """Write a data set of simulated machines in the DCASE 2023 layout to OUT (a local path or s3://)."""
    from ray_asd.data import simulate as simulation

    with summary("simulate", None, as_json) as result:
        if machines:
            fleet["machines"] = tuple(name.strip() for name in machines.split(","))
        progress = Progress()
        out = storage.absolute(out)
        count = simulation.write(
            simulation.Fleet(**fleet), out, workers, lambda done, total: progress("simulate", done, total)
        )
        result.outputs, result.counts = {"dataset": out}, {"clips": count}


@_command("ingest fleet --out runs")
@click.argument("source", metavar="SRC")
@_out
@click.option("--layout", default="auto", show_default=True, help=f"How files are named: auto, {', '.join(LAYOUTS)}.")
@click.option("--machine-type", help="Of a flat folder.")
@click.option("--split", type=click.Choice(tables.SPLITS), help="Where neither folder nor CSV says it.")
@click.option("--truth", metavar="URI", help="Labels of anonymous clips: the organisers' list or evaluator folder.")
@click.option("--attributes", metavar="URI", help="A folder with the attributes that file names hide.")
@click.option("--dataset", help="First part of every clip_id; the source's own name by default.")
@click.option("--pack", is_flag=True, help="Copy the recordings into few large files, which later stages then read.")
@click.option("--reject-duplicates", is_flag=True, help="Reject recordings with the content of another one.")
@click.option("--max-rejects", type=click.IntRange(0), help="End with exit code 3 when more files are rejected.")
@_dry_run
@_json
def ingest(
    source: str,
    root: str,
    pack: bool,
    reject_duplicates: bool,
    max_rejects: int | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Check every recording below SRC (a folder, zip or CSV file, local or s3://) and write CLIPS and REJECTS."""
    from ray_asd.data.listing import Source
    from ray_asd.stages import ingest as stage

    root = storage.absolute(root)
    with summary("ingest", None if dry_run else root, as_json) as result:
        treatment = stage.Options(pack, reject_duplicates)
        for beside in ("truth", "attributes"):
            options[beside] = options[beside] and storage.absolute(options[beside])
        step = stage.step(Source(storage.absolute(source), **options), config.Worker(), Progress(), treatment)
        output = bring(result, root, step, "clips", "rejects", dry_run=dry_run)
        if output is None:
            return
        if not output.reused:
            click.echo(f"layout {output.marker.summary['why']}", err=True)
        rejects = result.counts.get("rejects", 0)
        if max_rejects is not None and rejects > max_rejects:
            result.gate = f"{rejects} files were rejected; --max-rejects allows {max_rejects}"


@_command("train --recipe tiny --clips runs/ingest/fleet-0123456789ab --out runs")
@click.option("--recipe", required=True, help="A packaged recipe (tiny, paper) or a path ending in .yaml.")
@_clips
@_out
@_set
@_dry_run
@_json
def train(recipe: str, clips: str, root: str, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Fine-tune the system that a recipe describes, on Ray Train."""
    from ray_asd.stages import train as stage

    root = storage.absolute(root)
    with summary("train", None if dry_run else root, as_json) as result:
        loaded = config.load(recipe, overrides)
        step = stage.system(loaded, build.resolve(clips, "ingest"), Progress())
        bring(result, root, step, "model", dry_run=dry_run)


@_command("sweep --recipe tiny --grid paper --clips runs/ingest/fleet-0123456789ab --out runs")
@click.option("--recipe", required=True, help="What all cells have in common: a packaged recipe or a path to a .yaml.")
@click.option("--grid", default="paper", show_default=True, help="Its variations: paper, full or a path to a .yaml.")
@click.option("--seeds", metavar="N,N", help="Run every cell with each of these seeds; the recipe's own by default.")
@_clips
@_out
@click.option("--report", "report_dir", metavar="DIR", help="Where the comparison goes; ROOT/report by default.")
@_set
@_dry_run
@_json
def sweep(
    recipe: str,
    grid: str,
    seeds: str | None,
    clips: str,
    root: str,
    report_dir: str | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train, score and compare all cells of a grid at once, shared work once, and write the paper's table."""
    from ray_asd.stages.sweep import Sweep

    root = storage.absolute(root)
    with summary("sweep", None if dry_run else root, as_json) as result:
        cells = grids.load(grid, recipe, overrides, _numbers(seeds))
        planned = Sweep(storage.name(grid).partition(".")[0], cells, build.resolve(clips, "ingest"), root)
        if dry_run:
            live.show_plan(planned)
            return
        with live.live(planned) as show:
            planned.run(show)
        compared = planned.compared()
        failures = [report.Failure(row.cell.system, row.cell.recipe.seed, error) for row, error in planned.failed]
        place = storage.absolute(report_dir) if report_dir else storage.join(root, "report")
        pages = report.pages(report.runs(planned.metrics, []), place, report.Options(), Progress())
        written = report.write(planned.metrics, compared, failures, place, pages)
        result.outputs = written.files | ({"comparison": compared.uri} if compared else {})
        result.counts, result.reused = planned.counts, planned.reused
        click.echo(written.table, err=as_json)
        if failures:
            raise StageError(f"{len(failures)} of {len(cells)} cells failed, the first one is {failures[0]}")


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(number) for number in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--seeds {text!r}: whole numbers with commas between them are needed, e.g. 0,1,2") from None


@_command("embed --model runs/train/hubert-WS-seed0-0123456789ab --clips URI --out runs")
@_model
@_clips
@_out
@_recipe_for_use
@_set
@_dry_run
@_json
def embed(model: str, clips: str, root: str, dry_run: bool, as_json: bool, **usage: Any) -> None:
    """Write one embedding per clip, on Ray Data."""
    from ray_asd.stages import embed as stage

    root = storage.absolute(root)
    with summary("embed", None if dry_run else root, as_json) as result:
        used = stage.use(model, **usage)
        if used.method != "backbone":
            raise UserError(f"{model} is a {used.method}, which has no embeddings; allowed: a fine-tuned backbone")
        step = stage.clips(used.model, build.resolve(clips, "ingest"), used.settings, Progress())
        bring(result, root, step, "embeddings", dry_run=dry_run)


@_command("score --model runs/tfp/hubert-WS-SA-TFP-seed0-0123456789ab --clips URI --out runs")
@_model
@_clips
@click.option("--bank", metavar="URI", help="CLIPS to compare with; by default those the model was trained on.")
@click.option("--submission", metavar="DIR", help="Write the official DCASE submission files here too.")
@click.option("--keep-embeddings", "keep", is_flag=True, help="Make EMBEDDINGS an output that other scorings share.")
@_out
@_recipe_for_use
@_set
@_dry_run
@_json
def score(
    model: str,
    clips: str,
    bank: str | None,
    submission: str | None,
    keep: bool,
    root: str,
    dry_run: bool,
    as_json: bool,
    **usage: Any,
) -> None:
    """Score the test clips against the healthy training clips of their machine type and section."""
    from ray_asd.stages import embed as embedding
    from ray_asd.stages import score as stage

    root = storage.absolute(root)
    with summary("score", None if dry_run else root, as_json) as result:
        used = embedding.use(model, **usage)
        queries = build.resolve(clips, "ingest")
        enrolled = build.resolve(bank, "ingest") if bank else used.trained_on or queries
        if bank and used.method != "backbone":
            raise UserError(f"--bank {bank}: a {used.method} compares with no bank; allowed: a fine-tuned backbone")
        heard = used.settings.audio
        step = stage.step(used.model, queries, enrolled, used.usage, heard, Progress(), used.method, keep)
        output = bring(result, root, step, "scores", dry_run=dry_run)
        if output and submission:
            from ray_asd.scoring.submission import write

            written = write(output.table(stage.SCORES), submission)
            result.outputs["submission"] = storage.absolute(submission)
            for name in written.without_decisions:
                click.echo(f"no {name}: without a threshold there are no decisions", err=True)


@_command("evaluate --scores runs/score/hubert-WS-seed0-0123456789ab --out runs")
@click.option(
    "--scores", metavar="URI", multiple=True, required=True, help="SCORES, repeatable; or a submission folder."
)
@click.option(
    "--truth", metavar="DIR", help="Ground truth of a submission folder, laid out as the official evaluator's."
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="auto",
    show_default=True,
    help="Whose definitions; auto: 2023's, or without domains AUC and pAUC alone.",
)
@_out
@_dry_run
@_json
def evaluate(
    scores: tuple[str, ...], truth: str | None, protocol: str, root: str, dry_run: bool, as_json: bool
) -> None:
    """Write METRICS by the official definitions of DCASE Task 2, and print the table with the floor row."""
    from ray_asd.stages import evaluate as stage

    root = storage.absolute(root)
    with summary("evaluate", None if dry_run else root, as_json) as result:
        if truth and len(scores) > 1:
            raise UserError(f"--truth goes with one --scores folder, not {len(scores)}")
        if truth:
            step = stage.submission_step(storage.absolute(scores[0]), storage.absolute(truth), protocol)
        else:
            step = stage.step([build.resolve(uri, "score") for uri in scores], Progress(), protocol)
        output = bring(result, root, step, "metrics", dry_run=dry_run)
        if output:
            click.echo(report.overview_of([output]), err=as_json)


@_command("report --runs runs --out report --clips 5")
@click.option("--runs", "root", metavar="ROOT", required=True, help="Where outputs live: a local path or s3://.")
@click.option("--out", metavar="DIR", required=True, help="Where report.html and runs/ with a page per run go.")
@click.option("--clips", "count", type=click.IntRange(0, 10), default=5, show_default=True, help="Shown on each page.")
@click.option("--no-audio", is_flag=True, help="Leave the recordings' players out.")
@_json
def report_command(root: str, out: str, count: int, no_audio: bool, as_json: bool) -> None:
    """Write a page for each run below ROOT and the comparison of all METRICS, as HTML, Markdown and CSV."""
    with summary("report", None, as_json) as result:
        found = archive.outputs(_existing(root))
        metrics, scores, compared = (
            [output for output in found if output.marker.stage == stage] for stage in ("evaluate", "score", "compare")
        )
        if not metrics and not scores:
            raise UserError(f"{storage.absolute(root)} holds no METRICS; run `ray-asd evaluate` first")
        place, options = storage.absolute(out), report.Options(count, not no_audio)
        pages = report.pages(report.runs(metrics, scores), place, options, Progress())
        written = report.write(metrics, compared[-1] if compared else None, [], place, pages)
        result.outputs, result.counts = written.files, {"pages": len(pages)}


@_command("fetch-weights facebook/hubert-base-ls960 --to s3://models/hubert-base")
@click.argument("model")
@click.option("--to", metavar="URI", required=True, help="A local path or s3://, later the recipe's backbone.source.")
@click.option("--revision", help="Commit, tag or branch on the hub; by default its main branch.")
@_json
def fetch_weights(model: str, to: str, revision: str | None, as_json: bool) -> None:
    """Copy MODEL (a hub checkpoint, a folder or s3://) to one place of your own, pinned at its commit."""
    from ray_asd.models import checkpoints

    with summary("fetch-weights", None, as_json) as result:
        copy = checkpoints.mirror(model, revision, to)
        result.outputs, result.counts, result.reused = {"weights": copy.uri}, {"files": copy.files}, copy.reused


@_command("ls runs")
@click.argument("root")
@_json
def ls(root: str, as_json: bool) -> None:
    """List the finished stages below ROOT, oldest first."""
    with summary("ls", None, as_json) as result:
        found = archive.outputs(_existing(root))
        if as_json:
            result.outputs = _by_folder(found)
            return
        for output in found:
            marker = output.marker
            counts = ", ".join(f"{name} {count}" for name, count in sorted(marker.counts.items()))
            click.echo(f"{marker.started_at:%Y-%m-%d %H:%M}  {marker.seconds:8.1f} s  {output.uri}  {counts}")


@_command("show runs/train/hubert-WS-seed0-0123456789ab")
@click.argument("uri")
@_json
def show(uri: str, as_json: bool) -> None:
    """Print the marker of one output as JSON, and the outputs it was made from."""
    with summary("show", None, as_json) as result:
        output, *parents = archive.lineage(archive.find(uri))
        click.echo(output.marker.model_dump_json(indent=2))
        if as_json:
            result.outputs, result.counts = _by_folder([output, *parents]), output.marker.counts
            return
        for number, parent in enumerate(parents, start=1):
            click.echo(f"from {number}: {parent.uri}", err=True)


def _existing(root: str) -> str:
    root = storage.absolute(root)
    if not storage.is_folder(root):
        raise UserError(f"{root}: no such folder; allowed: a ROOT that earlier commands wrote to")
    return root


def _by_folder(outputs: Sequence[build.Output]) -> dict[str, str]:
    return {"/".join(output.uri.split("/")[-2:]): output.uri for output in outputs}


@_command("gc runs --keep runs/score/hubert-WS-seed0-0123456789ab --dry-run")
@click.argument("root")
@click.option("--keep", metavar="URI", multiple=True, help="Remove finished outputs too, but for this and its origins.")
@click.option("--older-than", type=click.FloatRange(0), default=24, show_default=True, help="Hours without a write.")
@_dry_run
@_json
def gc(root: str, keep: tuple[str, ...], older_than: float, dry_run: bool, as_json: bool) -> None:
    """Remove what killed runs left below ROOT, and, with --keep, what the kept outputs do not need."""
    root = _existing(root)
    with summary("gc", None if dry_run else root, as_json) as result:
        found = archive.leftovers(root, list(keep), older_than * 3600)
        for leftover in found:
            click.echo(f"{'would remove' if dry_run else 'remove'} {leftover.uri}: {leftover.why}", err=True)
            if not dry_run:
                storage.remove(leftover.uri)
        result.counts = {"removed": 0 if dry_run else len(found), "found": len(found)}
