"""Train one system, or all of a grid."""

import click

from ray_asd import build, config, report, store
from ray_asd import grid as grids
from ray_asd.cli import live
from ray_asd.cli.app import clips_option, command, dry_run_option, json_option, out_option, set_option
from ray_asd.cli.console import Progress, bring, summary
from ray_asd.cli.pages import Pages
from ray_asd.errors import Retryable, StageError, UserError


@command("train --recipe tiny --clips runs/ingest/fleet-0123456789ab --out runs")
@click.option("--recipe", required=True, help="A packaged recipe (tiny, paper) or a path ending in .yaml.")
@clips_option
@out_option
@set_option
@dry_run_option
@json_option
def train(recipe: str, clips: str, root: str, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Fine-tune the system that a recipe describes, on Ray Train."""
    from ray_asd.stages.training import systems as stage

    root = store.absolute(root)
    with summary("train", None if dry_run else root, as_json) as result:
        loaded = config.load(recipe, overrides)
        step = stage.system(loaded, build.resolve(clips, "ingest"), Progress())
        bring(result, root, step, "model", dry_run=dry_run)


@command("sweep --recipe tiny --grid paper --clips runs/ingest/fleet-0123456789ab --out runs")
@click.option("--recipe", required=True, help="What all cells have in common: a packaged recipe or a path to a .yaml.")
@click.option("--grid", default="paper", show_default=True, help="Its variations: paper, full or a path to a .yaml.")
@click.option("--seeds", metavar="N,N", help="Run every cell with each of these seeds; the recipe's own by default.")
@clips_option
@out_option
@click.option("--report", "report_dir", metavar="DIR", help="Where the comparison goes; ROOT/report by default.")
@set_option
@dry_run_option
@json_option
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

    root = store.absolute(root)
    with summary("sweep", None if dry_run else root, as_json) as result:
        cells = grids.load(grid, recipe, overrides, _numbers(seeds))
        place = store.absolute(report_dir) if report_dir else store.join(root, "report")
        if not dry_run:
            store.check_writable(place)
        planned = Sweep(store.name(grid).partition(".")[0], cells, build.resolve(clips, "ingest"), root)
        if dry_run:
            live.show_plan(planned)
            return
        with live.live(planned) as show:
            planned.run(show)
        compared = planned.compared()
        failures = [report.Failure(row.cell.system, row.cell.recipe.seed, error) for row, error in planned.failed]
        store.tag_outputs(place)
        written = Pages(planned.metrics, place, comparison=compared, failures=failures).publish(root)
        result.outputs = written.files | ({"comparison": compared.uri} if compared else {})
        result.counts, result.reused = planned.counts, planned.reused
        click.echo(written.table, err=as_json)
        if failures:
            kind = Retryable if planned.retryable else StageError
            raise kind(f"{len(failures)} of {len(cells)} cells failed, the first one is {failures[0]}")


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(number) for number in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--seeds {text!r}: whole numbers with commas between them are needed, e.g. 0,1,2") from None
