"""A model and how it is used: what is heard, how it is cut, how embeddings become scores, on what all that runs.

A model is a folder of weights and a card, or the name of features that need neither: ``spectral`` (mean and deviation
of log-mel frames, and of their changes) or ``log-mel`` (without the changes), the field's naive baseline.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, config, store
from ray_asd.build import Output, archive
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Backend, Recipe, Scoring, Usage
from ray_asd.errors import UserError
from ray_asd.models.card import CARD, WEIGHTS, ModelCard, read_card
from ray_asd.tables import Folder

Features = Literal["spectral", "log-mel"]
SPECTRAL: Features = "spectral"
LOG_MEL: Features = "log-mel"
FEATURES: tuple[Features, ...] = (SPECTRAL, LOG_MEL)
_FORMERLY = {"floor": LOG_MEL}  # as scripts say that were written for the first version
_BASELINE_SCORING = {"autoencoder": "autoencoder", "mobilenet": "mobilenet_class"}  # what of the scoring each heeds

Method = Literal["backbone", "autoencoder", "mobilenet"] | Features
Embed = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Used:
    """A model and how it is used; travels to workers.

    Args:
        home: the output that holds its folder, below the path ``folder``; None for features.
        recipe: it was trained by; None for features.
        trained_on: the CLIPS it was trained on, where they still are.
        label: its name in every table, where that is known already.
    """

    method: Method
    audio: Audio
    usage: Usage
    home: Step | Output | None = None
    folder: str = ""
    recipe: Recipe | None = None
    trained_on: Output | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """What stages that use it are called."""
        if self.home is None:
            return self.method
        return self.home.name if isinstance(self.home, Step) else self.home.marker.name

    @property
    def has_bank(self) -> bool:
        """Whether its scores are distances to a bank of embeddings, not the model's own."""
        return self.method not in _BASELINE_SCORING

    @property
    def backend(self) -> Backend:
        """How its embeddings become scores."""
        return self.usage.scoring.backend

    @property
    def system(self) -> str:
        """The row's name in every table, with what of its back-end is not as its own recipe has it."""
        if self.label is not None:
            return self.label
        if self.recipe is None:
            return self.method + _differing(self.backend, _plain(self.method).backend)
        if not self.has_bank:
            return self.recipe.model_copy(update={"scoring": self.usage.scoring}).system
        return self.recipe.system + _differing(self.backend, self.recipe.scoring.backend)

    @property
    def seed(self) -> int | None:
        """Of its training."""
        return self.recipe.seed if self.recipe else None

    def key(self) -> dict[str, Any]:
        """What its embeddings, or a baseline's own scores, depend on beside the model."""
        key: dict[str, Any] = {"audio": self.audio.model_dump(mode="json")}
        if self.method in FEATURES:
            return key | {"features": self.method}
        if self.method in _BASELINE_SCORING:
            key |= {"threads": self.usage.inference.threads}
            return key | self.usage.scoring.model_dump(mode="json", include={_BASELINE_SCORING[self.method]})
        return key | {"inference": self.usage.inference.model_dump(mode="json")}

    def scoring_key(self) -> dict[str, Any]:
        """What its scores depend on beside its embeddings and its bank; a baseline's own scores depend on no more."""
        fields = {"backend", "index"} if self.has_bank else set()
        key = {"method": self.method, "system": self.system, "seed": self.seed, **self.key()}
        return key | self.usage.scoring.model_dump(mode="json", include=fields)

    def card(self) -> ModelCard:
        """Of its folder, which must be there."""
        assert isinstance(self.home, Output)
        return read_card(self.home.fetch(self._path(CARD)))

    def files(self) -> tuple[Any, Any]:
        """Local copies of card and weights."""
        assert isinstance(self.home, Output)
        return self.home.fetch(self._path(CARD)), self.home.fetch(self._path(WEIGHTS))

    def provenance(self) -> "Provenance":
        """Which recordings its training has seen."""
        card = self.card() if self.home else None
        if card is None or not card.recipe.is_trained:
            return Provenance(frozenset(), frozenset())
        held_out = frozenset(card.held_out)
        if self.trained_on is not None:
            clips = self.trained_on
            rows = clips.table(Folder.CLIPS, columns=["content_hash", "split"]).filter(pc.field("split") == "train")
            return Provenance(held_out, frozenset(rows["content_hash"].to_pylist()) - held_out)
        assert isinstance(self.home, Output)
        listed = self.home.files(f"{self.folder}/{Folder.TRAINED}") if self.folder else []
        if not listed:
            return Provenance(held_out, None)
        return Provenance(held_out, frozenset(self.home.part(listed[0].path)["content_hash"].to_pylist()))

    def at(self, home: Output, folder: str) -> "Used":
        """The same, found elsewhere."""
        return self if self.home is None else replace(self, home=home, folder=folder)

    def _path(self, name: str) -> str:
        return store.join(self.folder, name) if self.folder else name


@dataclass(frozen=True)
class Provenance:
    """Contents that a model's training held out, and those it was trained on (None: nobody knows any more)."""

    held_out: frozenset[str]
    trained: frozenset[str] | None

    def roles(self, clips: pa.Table) -> list[str]:
        """Of each healthy clip its role in ``tables.HEALTHY``; where nobody knows, a clip was trained on."""
        return [
            self._role(content, split)
            for content, split in zip(clips["content_hash"].to_pylist(), clips["split"].to_pylist(), strict=True)
        ]

    def _role(self, content: str, split: str) -> str:
        if self.trained is not None and content in self.trained:
            return "trained"
        if split == "calibration" or content in self.held_out:
            return "unseen"
        return "bank" if self.trained is not None else "trained"


def features(method: Features, usage: Usage | None = None, audio: Audio | None = None) -> Used:
    """Features by name, by default compared as the field does: log-mel statistics by cosine, spectral ones whitened."""
    return Used(method, audio or Audio(), usage or Usage(scoring=_plain(method)))


def planned(model: Step | Output, recipe: Recipe, clips: Output) -> Used:
    """The model that ``recipe`` trains on ``clips``, used as the recipe says."""
    trained_on = clips if recipe.is_trained else None
    return Used(recipe.method, recipe.audio, recipe, model, recipe=recipe, trained_on=trained_on)


def use(model: str, recipe: str | None = None, overrides: tuple[str, ...] = ()) -> Used:
    """The model at a URI, or features by name; used as its own recipe says, or as ``recipe`` does, with overrides.

    Features also take ``audio`` from the recipe and overrides: a model hears what it was trained on.

    Raises:
        UserError: there is no such model or recipe, or an override is not about its use.
    """
    model = _FORMERLY.get(model, model)
    for name in FEATURES:
        if name == model:
            base = config.load(recipe) if recipe else None
            heard, others = _apart(overrides)
            audio = config.heard(base.audio if base else Audio(), heard)
            return features(name, config.usage(base or Usage(scoring=_plain(name)), others), audio)
    try:
        output = build.resolve(model, "train", "tfp")
    except UserError as error:
        raise UserError(f"{error}, or {' or '.join(FEATURES)}") from None
    own = read_card(output.fetch(CARD)).recipe
    usage = config.usage(config.load(recipe) if recipe else own, overrides)
    trained_on = archive.known(output.marker.inputs["clips"].uri) if own.is_trained else None
    return Used(own.method, own.audio, usage, output, "", own, trained_on)


def use_together(models: Sequence[str], recipe: str | None, overrides: tuple[str, ...]) -> list[Used]:
    """Several of them, to be fused: features hear what the first trained model hears, unless told otherwise.

    Raises:
        UserError: see ``use``.
    """
    heard, others = _apart(overrides)
    models = [_FORMERLY.get(model, model) for model in models]
    found = [use(model, recipe, overrides if model in FEATURES else others) for model in models]
    if heard and not any(model in FEATURES for model in models):
        raise UserError(f"--set {heard[0]}: a model hears what it was trained on; allowed: with spectral or log-mel")
    audio = leading(found).audio
    told = bool(heard) or recipe is not None
    return [used if told or used.home else replace(used, audio=audio) for used in found]


def _apart(overrides: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Overrides of what is heard, and the others."""
    heard = tuple(override for override in overrides if override.startswith("audio."))
    return heard, tuple(override for override in overrides if override not in heard)


def leading(members: Sequence[Used]) -> Used:
    """Whose resources and thresholds count for all: the first trained model, else the first."""
    return next((member for member in members if member.recipe), members[0])


def load(used: Used) -> Any:
    """The fine-tuned backbone of a worker, packed for inference."""
    import torch

    from ray_asd.models import model_folder, products

    inference = used.usage.inference
    torch.set_num_threads(inference.threads)
    products.keep_float32()
    saved = model_folder.load(*used.files())
    saved.system.recipe = saved.system.recipe.model_copy(update={"inference": inference})
    system = saved.system.to("cuda" if used.usage.resources.embed.gpus else "cpu")
    system.pack()
    return system


def embedding(used: Used) -> Embed:
    """What makes one float32 [E] of each waveform in a worker."""
    if used.method not in FEATURES:
        embed: Embed = load(used).embed_stream
        return embed
    from ray_asd.data import features

    one = {SPECTRAL: features.spectral_embedding, LOG_MEL: features.log_mel_embedding}[used.method]
    return lambda waves: map(one, waves)


def _plain(method: str) -> Scoring:
    return Scoring(backend=Backend.model_validate("paper")) if method == LOG_MEL else Scoring()


def _differing(backend: Backend, usual: Backend) -> str:
    told = [f"{name}={value}" for name, value in backend if value != getattr(usual, name)]
    return f" [{', '.join(told)}]" if told else ""
