"""A trained model, or the floor, and how it is used: what is heard, how it is cut, on what it runs.

The word ``floor`` is mean and standard deviation of log-mel frames, the untrained detector beside every system.
"""

from dataclasses import dataclass
from typing import Any

from ray_asd import build, config
from ray_asd.build import Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Inference, Usage, Worker
from ray_asd.models.card import CARD, WEIGHTS, read_card

FLOOR = "floor"


@dataclass(frozen=True)
class Settings:
    """How to embed: what is heard, how it is cut, on what."""

    audio: Audio
    inference: Inference
    worker: Worker
    workers: int | None

    def key(self, model: Step | Output | None) -> dict[str, Any]:
        """What of this an embedding depends on; the floor knows no inference."""
        key = {"audio": self.audio.model_dump(mode="json")}
        return key | ({"inference": self.inference.model_dump(mode="json")} if model else {})

    @classmethod
    def of(cls, usage: Usage, audio: Audio) -> "Settings":
        """Those of a recipe, or of other settings for the same model."""
        return cls(audio, usage.inference, usage.resources.embed, usage.resources.embed_workers)


@dataclass(frozen=True)
class Used:
    """A model as named by a user, or the floor, and how it is to be used."""

    model: Output | None
    method: str
    usage: Usage
    settings: Settings
    trained_on: Output | None  # CLIPS


def use(model: str, recipe: str | None, overrides: tuple[str, ...]) -> Used:
    """The model at a URI, or ``floor``; used as its own recipe says, or as ``recipe`` does, with overrides.

    Raises:
        UserError: there is no such model or recipe, or an override is not about its use.
    """
    if model == FLOOR:
        usage = config.usage(config.load(recipe) if recipe else Usage(), overrides)
        return Used(None, "backbone", usage, Settings.of(usage, Audio()), None)
    output = build.resolve(model, "train", "tfp")
    own = read_card(output.fetch(CARD)).recipe
    usage = config.usage(config.load(recipe) if recipe else own, overrides)
    return Used(output, own.method, usage, Settings.of(usage, own.audio), build.find(output.marker.inputs["clips"].uri))


def name_of(model: Step | Output | None) -> str:
    """What stages that use the model are called; None is the floor."""
    if model is None:
        return FLOOR
    return model.name if isinstance(model, Step) else model.marker.name


def load(model: Output, settings: Settings) -> Any:
    """The model of a worker, packed for inference."""
    import torch

    from ray_asd.models import model_folder

    torch.set_num_threads(settings.inference.threads)
    saved = model_folder.load(model.fetch(CARD), model.fetch(WEIGHTS))
    saved.system.recipe = saved.system.recipe.model_copy(update={"inference": settings.inference})
    system = saved.system.to("cuda" if settings.worker.gpus else "cpu")
    system.pack()
    return system
