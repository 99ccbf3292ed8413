"""From models to scores."""

from typing import Any

import click

from ray_asd import build, store
from ray_asd.cli.app import (
    clips_option,
    command,
    dry_run_option,
    json_option,
    model_option,
    out_option,
    recipe_for_use_option,
    set_option,
)
from ray_asd.cli.console import Progress, bring, summary
from ray_asd.errors import UserError
from ray_asd.tables import Folder


@command("embed --model runs/train/hubert-WS-seed0-0123456789ab --clips URI --out runs")
@model_option
@clips_option
@out_option
@recipe_for_use_option
@set_option
@dry_run_option
@json_option
def embed(model: str, clips: str, root: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Write one embedding per clip, on Ray Data."""
    from ray_asd.stages.detection import embed as stage
    from ray_asd.stages.training import usage

    root = store.absolute(root)
    with summary("embed", None if dry_run else root, as_json) as result:
        used = usage.use(model, **options)
        if used.method != "backbone":
            raise UserError(f"{model} is a {used.method}, which has no embeddings; allowed: a fine-tuned backbone")
        step = stage.clips(used.model, build.resolve(clips, "ingest"), used.settings, Progress())
        bring(result, root, step, "embeddings", dry_run=dry_run)


@command("score --model runs/tfp/hubert-WS-SA-TFP-seed0-0123456789ab --clips URI --out runs")
@model_option
@clips_option
@click.option("--bank", metavar="URI", help="CLIPS to compare with; by default those the model was trained on.")
@click.option("--submission", metavar="DIR", help="Write the official DCASE submission files here too.")
@click.option("--keep-embeddings", "keep", is_flag=True, help="Make EMBEDDINGS an output that other scorings share.")
@out_option
@recipe_for_use_option
@set_option
@dry_run_option
@json_option
def score(
    model: str,
    clips: str,
    bank: str | None,
    submission: str | None,
    keep: bool,
    root: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score the test clips against the healthy training clips of their machine type and section."""
    from ray_asd.stages.detection import score as stage
    from ray_asd.stages.training import usage

    root = store.absolute(root)
    with summary("score", None if dry_run else root, as_json) as result:
        used = usage.use(model, **options)
        queries = build.resolve(clips, "ingest")
        enrolled = build.resolve(bank, "ingest") if bank else used.trained_on or queries
        if bank and used.method != "backbone":
            raise UserError(f"--bank {bank}: a {used.method} compares with no bank; allowed: a fine-tuned backbone")
        heard = used.settings.audio
        step = stage.step(used.model, queries, enrolled, used.usage, heard, Progress(), used.method, keep)
        output = bring(result, root, step, "scores", dry_run=dry_run)
        if output and submission:
            from ray_asd.scoring.submission import write

            written = write(output.table(Folder.SCORES), submission)
            result.outputs["submission"] = store.absolute(submission)
            for name in written.without_decisions:
                click.echo(f"no {name}: without a threshold there are no decisions", err=True)
