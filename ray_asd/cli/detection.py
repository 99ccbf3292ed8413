"""From models to scores: embeddings, detectors, and what these say of clips."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import pyarrow.compute as pc

from ray_asd import build, store, tables
from ray_asd.build import Output
from ray_asd.build.steps import Step
from ray_asd.cli.app import (
    clips_option,
    command,
    dry_run_option,
    json_option,
    model_option,
    out_option,
    recipe_for_use_option,
    resources,
    set_option,
)
from ray_asd.cli.console import Progress, Result, bring, summary
from ray_asd.config import Resources
from ray_asd.errors import UserError, decoded
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.stages.training.usage import Used

_SCORES = "a detector says how it scores"
models_option = click.option(
    "--model", "models", metavar="URI", multiple=True, help="An output of train, or spectral or log-mel; repeatable."
)


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
        if not used.has_bank:
            raise UserError(f"{model} is a {used.method}, which has no embeddings; allowed: a backbone, spectral")
        step = stage.clips(used, build.resolve(clips, "ingest"), Progress())
        bring(result, root, step, "embeddings", "unscored", dry_run=dry_run)


@command("enroll --model spectral --clips URI --out runs")
@models_option
@click.option("--clips", metavar="URI", help="CLIPS whose healthy clips make the bank.")
@click.option(
    "--detector",
    metavar="URI",
    help="Make another one of this (or of REGISTRY@v3), with --add or --withdraw.",
)
@click.option("--add", metavar="URI", help="CLIPS whose healthy clips are to be in it too.")
@click.option("--withdraw", metavar="FILE", help="clip_ids or content_hashes not to be in it any more, one a line.")
@out_option
@recipe_for_use_option
@set_option
@dry_run_option
@json_option
def enroll(root: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Make a DETECTOR of one model or several and the healthy recordings of machines: all that scoring needs."""
    root = store.absolute(root)
    with summary("enroll", None if dry_run else root, as_json) as result:
        extends = options["detector"] or options["add"] or options["withdraw"]
        output = bring(
            result, root, _extended(**options) if extends else _enrolled(**options), "detector", dry_run=dry_run
        )
        if output:
            _tell(output)


def _enrolled(
    models: Sequence[str], clips: str | None, recipe: str | None, overrides: tuple[str, ...], **others: str | None
) -> Step:
    from ray_asd.stages.detection import enroll as stage
    from ray_asd.stages.training import usage

    if not models or not clips:
        raise UserError("--model and --clips are needed, or --detector with --add or --withdraw")
    members = usage.use_together(models, recipe, overrides)
    return stage.step(members, build.resolve(clips, "ingest"), Progress())


def _extended(
    models: Sequence[str],
    clips: str | None,
    detector: str | None,
    add: str | None,
    withdraw: str | None,
    recipe: str | None,
    overrides: tuple[str, ...],
) -> Step:
    from ray_asd.stages.detection import enroll as stage
    from ray_asd.stages.fleet import registry

    if not detector or not (add or withdraw):
        raise UserError("--detector goes with --add, --withdraw or both")
    if models or clips or recipe:
        raise UserError(
            "--detector says which models it has and how they are used; leave --model, --clips and --recipe"
        )
    withdrawn = decoded(withdraw, store.read(store.absolute(withdraw))).split("\n") if withdraw else []
    return stage.extension(
        registry.detector(detector),
        build.resolve(add, "ingest", "feedback") if add else None,
        [clip_id.strip() for clip_id in withdrawn if clip_id.strip()],
        resources(overrides, _SCORES),
        Progress(),
    )


def _tell(detector: Output) -> None:
    """Which machines a new detector cannot decide on, which clips count once, and which embeddings say nothing."""
    _tell_of_bank(detector)
    for group, why in sorted(detector.marker.summary["learning"].items()):
        click.echo(f"learning: {group}: {why}", err=True)


def _tell_of_bank(detector: Output) -> None:
    found = detector.marker.summary
    for group, count in found["twins"].items():
        click.echo(f"twins: {group}: {count} clips are the content of another one and count once with it", err=True)
    for group in found["collapsed"]:
        click.echo(f"warning: the embeddings of {group} are all but equal: its scores are mostly rounding", err=True)


@command("score --detector runs/enroll/spectral-0123456789ab --clips URI --out runs")
@click.option("--detector", metavar="URI", help="An output of enroll; REGISTRY for its current version, REGISTRY@v3.")
@models_option
@clips_option
@click.option("--bank", metavar="URI", help="With --model: CLIPS to enrol; by default those it was trained on.")
@click.option("--submission", metavar="DIR", help="Write the year's DCASE submission files here too.")
@click.option("--max-unscored", metavar="N|P%", help="End with exit code 3 when more clips could not be scored.")
@out_option
@recipe_for_use_option
@set_option
@dry_run_option
@json_option
def score(
    detector: str | None,
    models: Sequence[str],
    clips: str,
    submission: str | None,
    max_unscored: str | None,
    root: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score the test clips with a detector, or with one that is enrolled of --model first."""
    from ray_asd.stages.detection import score as stage

    root = store.absolute(root)
    with summary("score", None if dry_run else root, as_json) as result:
        queries = build.resolve(clips, "ingest")
        allowed = most_unscored(max_unscored, queries.marker.counts.get("test", 0))
        made: Step | Output
        if detector:
            made, resources = _given(detector, models, **options)
        else:
            made, resources = _first_enrolled(models, queries, **options)
        if submission:
            _check_submission(queries, submission)
        step = stage.step(made, queries, resources, Progress())
        output = bring(result, root, step, "scores", "unscored", "thresholds", dry_run=dry_run)
        if output is None:
            return
        result.outputs["detector"] = output.marker.inputs["detector"].uri
        if not detector:
            _tell_of_bank(build.resolve(result.outputs["detector"], "enroll"))
        if enrolled := output.marker.counts.get("enrolled"):
            told = "clips are in the bank themselves; each was compared with the others there"
            click.echo(f"twins: {enrolled} {told}", err=True)
        if submission:
            _submit(output, queries, submission, result)
        result.gate = _gate(output, allowed)


def _given(
    detector: str, models: Sequence[str], bank: str | None, recipe: str | None, overrides: tuple[str, ...]
) -> tuple[Output, Resources]:
    from ray_asd.stages.fleet import registry

    if models or bank or recipe:
        raise UserError("--detector has its models and its bank; leave --model, --bank and --recipe")
    return registry.detector(detector), resources(overrides, _SCORES)


def _first_enrolled(
    models: Sequence[str], queries: Output, bank: str | None, recipe: str | None, overrides: tuple[str, ...]
) -> tuple[Step, Resources]:
    from ray_asd.stages.detection import enroll as stage
    from ray_asd.stages.training import usage

    if not models:
        raise UserError("--detector or --model is needed: an output of enroll, or of train, or spectral or log-mel")
    members = usage.use_together(models, recipe, overrides)
    healthy = build.resolve(bank, "ingest") if bank else _trained_on(members) or queries
    return stage.step(members, healthy, Progress()), usage.leading(members).usage.resources


def _trained_on(members: Sequence["Used"]) -> Output | None:
    """The clips that the first trained one of these models knows; None where none was trained.

    Raises:
        UserError: they are gone.
    """
    trained = [member for member in members if member.recipe and member.recipe.is_trained]
    known = [member.trained_on for member in trained if member.trained_on]
    if trained and not known:
        why = f"the clips that {trained[0].name} was trained on are gone"
        raise UserError(f"--bank is needed: {why}; allowed: an output of ingest")
    return known[0] if known else None


def most_unscored(text: str | None, total: int) -> int | None:
    """How many clips may go unscored: a number, or a share of ``total`` in percent."""
    if text is None:
        return None
    try:
        most = total * float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        most = -1
    if not 0 <= most < math.inf:
        raise UserError(f"--max-unscored {text!r}; allowed: a number of clips such as 0, or a share such as 1%")
    return int(most)


def _gate(scores: Output, allowed: int | None) -> str | None:
    """Why the scores are not good enough to act on, where they are not."""
    counts = scores.marker.counts
    if not counts["clips"]:
        reasons = sorted(name.removeprefix("unscored_") for name in counts if name.startswith("unscored_"))
        return f"none of {counts['unscored']} clips could be scored: {', '.join(reasons)}; UNSCORED says why"
    if not counts["decided"]:
        reasons = sorted(set(scores.marker.summary["learning"].values()))
        return f"no clip was decided on, for no threshold could be set: {'; '.join(reasons)}"
    if allowed is not None and counts["unscored"] > allowed:
        return f"{counts['unscored']} clips could not be scored; --max-unscored allows {allowed}"
    return None


def _check_submission(clips: Output, folder: str) -> None:
    from ray_asd.scoring import submission

    rows = clips.table(Folder.CLIPS, tables.CLIPS, [*submission.NAMED, "split"])
    submission.check(rows.filter(pc.equal(rows["split"], "test")), folder, _year(clips))


def _submit(scores: Output, clips: Output, folder: str, result: Result) -> None:
    from ray_asd.scoring.submission import write

    written = write(scores.table(Folder.SCORES), folder, _year(clips))
    store.tag_outputs(store.absolute(folder))
    result.outputs["submission"] = store.absolute(folder)
    for name in written.without_decisions:
        click.echo(f"no {name}: without a threshold there are no decisions", err=True)


def _year(clips: Output) -> str:
    """The protocol of the year whose layout the clips have; files of own layouts are named as from 2022 on."""
    from ray_asd.data.years import LAYOUTS

    return LAYOUTS[clips.marker.summary["layout"]].protocol or "dcase2023"
