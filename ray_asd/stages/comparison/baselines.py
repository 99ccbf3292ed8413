"""Detectors without training, on the same clips and with the same bank as a system: what it has to beat."""

from collections.abc import Sequence

from ray_asd import store
from ray_asd.build import Output, archive
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Recipe, Scoring, Usage
from ray_asd.engine.progress import Progress
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.detection.enroll import Withheld
from ray_asd.stages.training.usage import SPECTRAL, Features, features

DEFAULT = (SPECTRAL,)


def of_recipe(recipe: Recipe, clips: Output, progress: Progress, names: Sequence[Features] = DEFAULT) -> list[Step]:
    """SCORES of the baselines beside a system that ``recipe`` trains on ``clips`` and enrols them with."""
    cpus = recipe.resources.embed.model_copy(update={"gpus": 0})  # features need none
    used = Usage(scoring=recipe.scoring, resources=recipe.resources.model_copy(update={"embed": cpus}))
    return _scored(names, clips, clips, withheld(recipe), recipe.audio, used, progress)


def of_scores(scores: Output, progress: Progress, names: Sequence[Features] = DEFAULT) -> list[Step]:
    """SCORES of the baselines beside SCORES that are there: of the same clips, by the bank of the same detector.

    There are none where the detector was extended, or what it was enrolled with is not there any more.
    """
    clips, detector = (archive.known(scores.marker.inputs[name].uri) for name in ("clips", "detector"))
    if clips is None or detector is None or "detector" in detector.marker.inputs:
        return []
    bank = archive.known(detector.marker.inputs["clips"].uri)
    if bank is None:
        return []
    card = detectors.read(detector)
    audio = card.members[0].audio
    used = Usage(scoring=Scoring(threshold=card.threshold))
    return _scored(names, clips, bank, _withheld(detector), audio, used, progress)


def withheld(recipe: Recipe) -> Withheld | None:
    """What a baseline's bank leaves out because the training by ``recipe`` held it out."""
    if not recipe.is_trained or not recipe.calibration_fraction:
        return None
    return Withheld(recipe.calibration_fraction, recipe.seed)


def _withheld(detector: Output) -> Withheld | None:
    """The same of a detector, by its first model that was trained on the clips it was enrolled with."""
    given = detector.marker.config.get("withheld")
    if given:
        return Withheld(**given)
    inputs = detector.marker.inputs
    for name, source in inputs.items():
        if name.startswith("trained_on_") and source.digest == inputs["clips"].digest:
            folder = detectors.member_folder(int(name.removeprefix("trained_on_")))
            return withheld(read_card(detector.fetch(store.join(folder, CARD))).recipe)
    return None


def _scored(
    names: Sequence[Features],
    clips: Output,
    bank: Output,
    apart: Withheld | None,
    audio: Audio,
    usage: Usage,
    progress: Progress,
) -> list[Step]:
    """By features of these names, with the thresholds and resources of ``usage``."""
    found = []
    for name in names:
        scoring = Scoring(backend=features(name).backend, threshold=usage.scoring.threshold)
        used = features(name, usage.model_copy(update={"scoring": scoring}), audio)
        found.append(score.step(enroll.step([used], bank, progress, apart), clips, usage.resources, progress))
    return found
