"""What scores are worth, and pages that tell it."""

import click

from ray_asd import build, report, store
from ray_asd.build import archive
from ray_asd.cli.app import command, dry_run_option, existing, json_option, out_option
from ray_asd.cli.console import Progress, bring, summary
from ray_asd.cli.pages import Pages
from ray_asd.errors import UserError
from ray_asd.scoring.protocols import CHOICES as PROTOCOLS
from ray_asd.stages.training.usage import FEATURES, Features


@command("evaluate --scores runs/score/hubert-WS-seed0-0123456789ab --out runs")
@click.option(
    "--scores", metavar="URI", multiple=True, required=True, help="SCORES, repeatable; or a submission folder."
)
@click.option(
    "--truth",
    metavar="DIR",
    help="Ground truth of a submission folder: an official evaluator's folder of any year, or its list of clips.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="auto",
    show_default=True,
    help="Whose definitions; auto: 2023's, without domains AUC and pAUC alone, and with --truth those of its year.",
)
@click.option(
    "--baseline",
    "baselines",
    type=click.Choice(FEATURES),
    multiple=True,
    default=FEATURES[:1],
    show_default=True,
    help="What else is scored with the same bank, repeatable: log-mel is the field's naive baseline.",
)
@out_option
@dry_run_option
@json_option
def evaluate(
    scores: tuple[str, ...],
    truth: str | None,
    protocol: str,
    baselines: tuple[Features, ...],
    root: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write METRICS by the official definitions of DCASE Task 2, and print the table with the baseline's row."""
    from ray_asd.stages.comparison import evaluate as stage

    root = store.absolute(root)
    with summary("evaluate", None if dry_run else root, as_json) as result:
        if truth and len(scores) > 1:
            raise UserError(f"--truth goes with one --scores folder, not {len(scores)}")
        if truth:
            step = stage.submission_step(store.absolute(scores[0]), store.absolute(truth), protocol)
        else:
            step = stage.step([build.resolve(uri, "score") for uri in scores], Progress(), protocol, baselines)
        output = bring(result, root, step, "metrics", dry_run=dry_run)
        if output:
            if not truth and not any(name.startswith("baseline") for name in output.marker.inputs):
                why = "the detectors were extended, or what they were enrolled with is not there any more"
                click.echo(f"no baseline: {why}", err=True)
            click.echo(report.overview_of([output]), err=as_json)


@command("report --runs runs --out report --clips 5")
@click.option("--runs", "root", metavar="ROOT", required=True, help="Where outputs live: a local path or s3://.")
@click.option("--out", metavar="DIR", required=True, help="Where report.html and runs/ with a page per run go.")
@click.option("--clips", "count", type=click.IntRange(0, 10), default=5, show_default=True, help="Shown on each page.")
@click.option("--no-audio", is_flag=True, help="Leave the recordings' players out.")
@json_option
def report_command(root: str, out: str, count: int, no_audio: bool, as_json: bool) -> None:
    """Write a page for each run below ROOT and the comparison of all METRICS, as HTML, Markdown and CSV."""
    with summary("report", None, as_json) as result:
        found = archive.outputs(existing(root))
        metrics, scores, compared = (
            [output for output in found if output.marker.stage == stage] for stage in ("evaluate", "score", "compare")
        )
        if not metrics and not scores:
            raise UserError(f"{store.absolute(root)} holds no METRICS; run `ray-asd evaluate` first")
        place, options = store.absolute(out), report.Options(count, not no_audio)
        store.check_writable(place)
        store.tag_outputs(place)
        pages = Pages(metrics, place, scores, compared[-1] if compared else None, options=options)
        written = pages.publish(store.absolute(root))
        result.outputs, result.counts = written.files, {"pages": written.pages}
