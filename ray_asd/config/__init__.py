"""Recipes: a complete description of one system, as frozen models that refuse contradictions before any work.

``load("tiny")`` finds a packaged recipe by name, ``load("my.yaml")`` a file. Everything except ``resources`` enters
the digests of the stages that it changes.
"""

from ray_asd.config.loading import heard, load, packaged_recipes, usage
from ray_asd.config.scoring import (
    PAPER_BACKEND,
    Backend,
    Index,
    ReconstructionScore,
    Scoring,
    Threshold,
)
from ray_asd.config.section import (
    Count,
    Fraction,
    Positive,
    Section,
)
from ray_asd.config.sections import (
    AAM,
    HUB_CHECKPOINTS,
    RANDOM_SIZES,
    SAMPLE_RATE,
    Audio,
    Augmentation,
    AutoEncoder,
    Backbone,
    Embedding,
    Family,
    FineTuning,
    Inference,
    LabelPolicy,
    MobileNet,
    Optimisation,
    Policy,
    Recipe,
    Resources,
    TransformerPooling,
    Usage,
    Worker,
)

__all__ = [
    "AAM",
    "HUB_CHECKPOINTS",
    "PAPER_BACKEND",
    "RANDOM_SIZES",
    "SAMPLE_RATE",
    "Audio",
    "Augmentation",
    "AutoEncoder",
    "Backbone",
    "Backend",
    "Count",
    "Embedding",
    "Family",
    "FineTuning",
    "Fraction",
    "Index",
    "Inference",
    "LabelPolicy",
    "MobileNet",
    "Optimisation",
    "Policy",
    "Positive",
    "Recipe",
    "ReconstructionScore",
    "Resources",
    "Scoring",
    "Section",
    "Threshold",
    "TransformerPooling",
    "Usage",
    "Worker",
    "heard",
    "load",
    "packaged_recipes",
    "usage",
]
