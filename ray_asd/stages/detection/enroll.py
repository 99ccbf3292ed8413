"""Enrolment: healthy clips and one or several models make a DETECTOR; more clips, or fewer, make another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.build import Attempt, Outcome, Output, digest_of
from ray_asd.build.steps import Step
from ray_asd.config import Resources, Worker
from ray_asd.engine.progress import Progress
from ray_asd.errors import UserError
from ray_asd.stages.detection import detector, embed, healthy
from ray_asd.stages.detection.healthy import Source
from ray_asd.stages.recordings import refusals
from ray_asd.stages.training.usage import Used, leading
from ray_asd.tables import Folder

CODE_VERSION = 3
_CLIP_GB = 20e-6  # of memory, for its embedding and what it is compared with


@dataclass(frozen=True)
class Withheld:
    """A share of the training clips that stays out of the bank, as training with this seed would hold it out."""

    fraction: float
    seed: int


def step(members: Sequence[Used], clips: Output, progress: Progress, withheld: Withheld | None = None) -> Step:
    """The DETECTOR of ``members`` with the healthy clips among ``clips``; several members are fused.

    Raises:
        UserError: there are no healthy clips, or a member stands there twice.
    """
    keys = [(member.name, digest_of(member.scoring_key())) for member in members]
    twice = next((name for name, key in keys if keys.count((name, key)) > 1), None)
    if twice:
        raise UserError(f"{twice} stands there twice; allowed: each model once")
    if not any(clips.marker.counts.get(split) for split in embed.HEALTHY_SPLITS):
        raise UserError(f"{clips.uri} holds no healthy clips to enrol; allowed: clips of split train or calibration")
    inputs: dict[str, Step | Output] = {"clips": clips}
    for number, member in enumerate(members):
        inputs[f"said_{number}"] = embed.clips(member, clips, progress, embed.HEALTHY_SPLITS)
        inputs |= {f"model_{number}": member.home} if member.home else {}
        inputs |= {f"trained_on_{number}": member.trained_on} if member.trained_on else {}
    config = {
        "members": [member.scoring_key() for member in members],
        "threshold": leading(members).usage.scoring.threshold.model_dump(mode="json"),
    } | ({"withheld": {"fraction": withheld.fraction, "seed": withheld.seed}} if withheld else {})
    homeless = [replace(member, home=None) for member in members]  # which the inputs are; a step could not travel
    num_clips = sum(clips.marker.counts.get(split, 0) for split in embed.HEALTHY_SPLITS)
    return Step(
        stage="enroll",
        name="-".join(member.name for member in members)[:100],
        code_version=CODE_VERSION,
        config=config,
        inputs=inputs,
        work=lambda attempt, inputs: _enrolled(attempt, inputs, homeless, withheld),
        units=num_clips,
        worker=_worker(num_clips, len(members)),
        on_ray=False,
        check=lambda: _check(members, clips),
    )


def _check(members: Sequence[Used], clips: Output) -> None:
    for member in members:
        if member.has_bank:
            refusals.neighbours(clips, member.backend, embed.HEALTHY_SPLITS)


def extension(
    before: Output, clips: Output | None, withdrawn: Sequence[str], resources: Resources, progress: Progress
) -> Step:
    """The DETECTOR ``before`` with the healthy clips of ``clips`` too, and without those ``withdrawn``.

    These are clip_ids or contents; a recording that is withdrawn by one of its names is gone under all of them.

    Raises:
        UserError: there is nothing to do, or ``before`` does not hold a clip that is to be withdrawn, or holds several
            of that name.
    """
    card = detector.read(before)
    inputs: dict[str, Step | Output] = {"detector": before}
    members = detector.members(before, card, resources)
    rows = pa.concat_tables([_kept(before, number).rows for number in range(len(members))])
    num_clips = pc.count_distinct(rows["content_hash"]).as_py()
    try:
        gone = healthy.contents_of(rows, withdrawn)
    except UserError as error:
        raise UserError(f"{before.uri}: {error}") from None
    if not withdrawn and not (clips and any(clips.marker.counts.get(split) for split in embed.HEALTHY_SPLITS)):
        raise UserError(f"nothing to add to {before.uri}: no clips of split train or calibration, and none to withdraw")
    if clips:
        inputs["clips"] = clips
        for number, member in enumerate(members):
            inputs[f"said_{number}"] = embed.clips(member, clips, progress, embed.HEALTHY_SPLITS)
    return Step(
        stage="enroll",
        name=before.marker.name,
        code_version=CODE_VERSION,
        config={"withdrawn": digest_of(gone)},
        inputs=inputs,
        work=lambda attempt, inputs: _extended(attempt, inputs, members, gone),
        units=num_clips,
        worker=_worker(num_clips, len(members)),
        on_ray=False,
    )


def _worker(clips: int, members: int) -> Worker:
    """Of the task that fits banks and back-ends."""
    return Worker(memory_gb=1 + clips * members * _CLIP_GB)


def _enrolled(
    attempt: Attempt, inputs: Mapping[str, Output], members: Sequence[Used], withheld: Withheld | None
) -> Outcome:
    from ray_asd.data.training_set import held_out
    from ray_asd.stages.detection import assembly

    apart: set[str] = set()
    if withheld:
        apart = set(held_out(inputs["clips"].table(Folder.CLIPS), withheld.fraction, withheld.seed))
    here = [replace(member, home=inputs.get(f"model_{number}")) for number, member in enumerate(members)]
    seen = [member.provenance() for member in here]
    sources = [[healthy.said(inputs[f"said_{number}"], known, apart)] for number, known in enumerate(seen)]
    made_of = {name: source.marker.content for name, source in inputs.items() if not name.startswith("said")}
    unheard = max(inputs[name].marker.counts.get("unscored", 0) for name in inputs if name.startswith("said"))
    seed = withheld.seed if withheld else None
    threshold = leading(members).usage.scoring.threshold
    return assembly.made(attempt, assembly.Plan(here, sources, seen, threshold, made_of, seed, unheard=unheard))


def _extended(
    attempt: Attempt, inputs: Mapping[str, Output], members: Sequence[Used], withdrawn: Sequence[str]
) -> Outcome:
    from ray_asd.stages.detection import assembly

    before = inputs["detector"]
    card = detector.read(before)
    sources = [[_kept(before, number)] for number in range(len(members))]
    seen = [member.provenance() for member in members]
    unheard = 0
    if "clips" in inputs:
        for number, known in enumerate(seen):
            said = inputs[f"said_{number}"]
            sources[number].append(healthy.said(said, known))
            unheard = max(unheard, said.marker.counts.get("unscored", 0))
    made_of = dict(card.sources)
    if "clips" in inputs:
        content = inputs["clips"].marker.content
        made_of[f"added {content[:12]}"] = content
    plan = assembly.Plan(members, sources, seen, card.threshold, made_of, card.seed, withdrawn, unheard)
    return assembly.made(attempt, plan)


def _kept(before: Output, number: int) -> Source:
    return healthy.kept(before, detector.member_folder(number))
