"""The card of a saved model: what it is, readable without torch, so that a finished stage is recognised at once."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_asd.config import SAMPLE_RATE, Recipe
from ray_asd.errors import UserError
from ray_asd.models.checkpoints import Checkpoint

FORMAT_VERSION = 4  # of what the tensors and the recipe mean; another one is another embedding
CARD = "model.json"
WEIGHTS = "weights.safetensors"


class ModelCard(BaseModel):
    """What a saved model is, where it comes from and what it was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    system: str  # the row's name in every table
    recipe: Recipe
    checkpoint: Checkpoint | None  # what training started from, and the backbone's architecture; None: a baseline
    sample_rate: int = SAMPLE_RATE  # Hz
    normalize: bool | None = None  # zero mean and unit variance per clip, as resolved for this backbone
    conditions: list[str]  # class names in the order of the classifier's rows; none for an AutoEncoder
    machine_types: list[str] = []  # of an AutoEncoder, in the order of its tensors' numbers
    held_out: list[str]  # contents (sha256) that were kept from training, to calibrate thresholds on
    steps: int  # of training
    layer_weights: list[float] | None = None  # of the weighted sum, from the first layer's input to the last layer
    versions: dict[str, str]
    weights_sha256: str


def read_card(card: Path) -> ModelCard:
    """The validated card of a model folder.

    Raises:
        UserError: it is missing, no card, or written in another format.
    """
    try:
        values = json.loads(card.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{card}: no model card; a model folder holds {CARD} and {WEIGHTS}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{card}: model format {version!r}; this program reads format {FORMAT_VERSION}")
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in mistake["loc"])
        raise UserError(f"{card}: {where}: {mistake['msg']}") from error
