"""A model folder as the output of a stage."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ray_asd.build import Attempt, Outcome
from ray_asd.models.card import CARD, WEIGHTS, ModelCard

AUTOENCODER = "autoencoder.safetensors"  # of one machine type, before the model folder of all is made


def stored(attempt: Attempt, save: Callable[[Path], ModelCard]) -> Outcome:
    """The two files that ``save`` writes into a folder, put below ``attempt``."""
    with TemporaryDirectory() as folder:
        card = save(Path(folder))
        files = [attempt.put_file(name, Path(folder) / name) for name in (CARD, WEIGHTS)]
    counts = {"conditions": len(card.conditions), "held_out": len(card.held_out)}
    return Outcome(files, counts, {"system": card.system, "seed": card.recipe.seed})
