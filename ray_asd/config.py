"""Recipes: a complete description of one system, as frozen models that refuse contradictions before any work.

``load("tiny")`` finds a packaged recipe by name, ``load("my.yaml")`` a file. Everything except ``resources`` enters
the digests of the stages that it changes; the unit of each value stands in its comment.
"""

from importlib import resources as package
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ray_asd.errors import UserError, unknown

SAMPLE_RATE = 16_000  # Hz, of every waveform inside the program
RANDOM_SIZES = ("tiny", "small", "base")
HUB_CHECKPOINTS = {
    "wav2vec2": "facebook/wav2vec2-xls-r-300m",
    "unispeech": "microsoft/unispeech-sat-base-plus",  # a stand-in: no plain 12-layer UniSpeech is published
    "hubert": "facebook/hubert-base-ls960",
    "wavlm": "microsoft/wavlm-base-plus",
}
Family = Literal["wav2vec2", "unispeech", "hubert", "wavlm"]
Policy = Literal["new_class", "keep", "drop_speed_attrs"]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Audio(Section):
    channel: Annotated[int, Field(ge=0)] | Literal["mean"] = 0  # which channel of a recording is heard


class Backbone(Section):
    family: Family
    source: str | None = None  # hub id, directory, s3:// URI or random:<size>; None: the family's hub checkpoint
    revision: str | None = None  # commit of a hub checkpoint; None: resolved and recorded when first loaded
    weighted_sum: bool = True  # WS: learned weights over all hidden states; off: the last layer
    normalize: bool | Literal["auto"] = "auto"  # zero mean, unit variance per clip; auto: as the checkpoint was trained
    freeze: Literal["nothing", "feature_encoder", "all"] = "nothing"
    dropout: Fraction | None = None  # every dropout inside the backbone; None: the checkpoint's own
    spec_augment: bool = False  # the checkpoint's own SpecAugment while training

    @property
    def checkpoint(self) -> str:
        return self.source or HUB_CHECKPOINTS[self.family]

    @model_validator(mode="after")
    def _known_random_size(self) -> Self:
        kind, _, size = self.checkpoint.partition(":")
        if kind == "random" and size not in RANDOM_SIZES:
            raise ValueError(f"unknown random size {size!r}; allowed: {', '.join(RANDOM_SIZES)}")
        return self


class LabelPolicy(Section):
    """The class of a variant, by mode; one word stands for both modes."""

    resample: Policy = "new_class"
    stretch: Policy = "keep"  # a stationary machine sounds the same stretched, so it must not be told apart

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: object) -> object:
        return dict.fromkeys(cls.model_fields, value) if isinstance(value, str) else value


class Augmentation(Section):
    speeds: tuple[Positive, ...] = (0.9, 1.1)  # > 1 is faster, hence shorter
    modes: tuple[Literal["resample", "stretch"], ...] = ("resample", "stretch")  # pitch moves with speed, or is kept
    label_policy: LabelPolicy = LabelPolicy()

    @model_validator(mode="after")
    def _has_variants(self) -> Self:
        if not self.speeds or not self.modes:
            raise ValueError("speeds and modes need at least one value each; leave augmentation out to have none")
        if 1.0 in self.speeds:
            raise ValueError("speed 1.0 is the original clip, which is always there; allowed: any other factor")
        return self


class Embedding(Section):
    pooling: Literal["mean", "attentive_statistics"] = "mean"  # over time
    dim: Count = 256


class AAM(Section):
    scale: Positive = 32.0
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.2  # radians, once ramped up
    ramp: tuple[float, float] = (0.13, 0.27)  # share of the steps at which the margin leaves 0 and reaches its value

    @model_validator(mode="after")
    def _ramp_rises(self) -> Self:
        if not 0 <= self.ramp[0] <= self.ramp[1] <= 1:
            raise ValueError(f"ramp {list(self.ramp)} must rise within [0, 1]")
        return self


class Optimisation(Section):
    steps: Count
    batch_size: Count  # over all workers together
    learning_rate: Positive = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # linear, then constant
    gradient_clip: Positive | None = None  # largest gradient norm
    checkpoint_every: Count = 500  # steps
    workers: Count = 1  # world size
    threads: Count = 1  # torch threads per worker
    precision: Literal["float32", "bf16"] = "float32"

    @model_validator(mode="after")
    def _splits_evenly(self) -> Self:
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of workers {self.workers}")
        return self


class FineTuning(Optimisation):
    crop_seconds: Positive = 2.0


class TransformerPooling(Optimisation):
    window_seconds: Positive = 2.0
    hop_seconds: Positive = 1.0
    layers: Count = 2
    heads: Count = 4
    feedforward: Count = 1024
    dropout: Fraction = 0.1


class AutoEncoder(Section):
    """The challenge's reconstruction baseline (Dohi et al. 2023); the defaults are its published behaviour."""

    epochs: Count = 100
    batch_size: Count = 256  # feature vectors, each of 5 log-mel frames
    learning_rate: Positive = 1e-3
    validation_fraction: Fraction = 0.1  # of the vectors, never trained on; drawn without regard to their clips
    residual_mean: Literal["batch", "all"] = "batch"  # what residuals are centred on before their covariance
    residual_divisor: Literal["vectors", "blocks"] = "vectors"  # what their scatter is divided by; 5 blocks a vector
    checkpoint_every: Count = 2000  # steps
    threads: Count = 1


class MobileNet(Section):
    """MobileNetV2 as a classifier of conditions; the defaults are those of the challenge's 2021 baseline."""

    epochs: Count = 20
    batch_size: Count = 32  # patches
    learning_rate: Positive = 1e-5
    width: Positive = 0.5  # multiplier of the channels
    frames: Count = 64  # of a patch
    hop_frames: Count = 8  # between patches
    checkpoint_every: Count = 2000  # steps
    threads: Count = 1


class Inference(Section):
    mode: Literal["windows", "whole"] = "windows"
    window_seconds: Positive = 2.0
    hop_seconds: Positive = 2.0
    precision: Literal["float32", "bf16"] = "float32"
    threads: Count = 1  # torch threads per embedding worker


class Threshold(Section):
    method: Literal["gamma", "quantile", "manual"] = "gamma"
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    value: float | None = None  # the threshold itself, when manual

    @model_validator(mode="after")
    def _manual_has_a_value(self) -> Self:
        if (self.method == "manual") != (self.value is not None):
            raise ValueError("threshold.value belongs to method manual, and manual needs it")
        return self


class ReconstructionScore(Section):
    score: Literal["mse", "mahalanobis"] = "mse"  # mahalanobis: the selective one, the smaller of source and target
    mahalanobis_of: Literal["mean_residual", "residuals"] = "mean_residual"  # as published; or the mean over residuals


class Index(Section):
    """How the k nearest are looked for; an approximate kind misses some, its recall is measured and recorded."""

    kind: Literal["exact", "ivf", "hnsw", "pq"] = "exact"
    beyond: Count = 100_000  # rows of one machine type and section; up to that many are searched exactly
    lists: Count | None = None  # ivf, pq: parts that the rows are sorted into; None: 4 times the root of their number
    probes: Count | None = None  # ivf, pq: lists looked through per query; None: a sixteenth of them
    pq_parts: Count | None = None  # pq: bytes kept per row; None: one for each 8 values
    pq_refine: Count = 64  # pq: candidates per neighbour whose true distances are computed
    hnsw_links: Annotated[int, Field(ge=2)] = 32  # hnsw: neighbours each row is linked to
    hnsw_construction: Count = 80  # hnsw: rows looked at to link one
    hnsw_search: Count = 128  # hnsw: rows looked at per query, at least

    @property
    def refine(self) -> int:
        """Candidates per neighbour that an approximate index proposes, at least."""
        return self.pq_refine if self.kind == "pq" else 1

    @model_validator(mode="after")
    def _probes_are_lists(self) -> Self:
        if self.lists and self.probes and self.probes > self.lists:
            raise ValueError(f"probes {self.probes} of {self.lists} lists; allowed: up to all of them")
        return self


PAPER_BACKEND = {
    "neighbours": 2,
    "whiten": None,
    "metric": "cosine",
    "density": "none",
    "banks": "pooled",
}


class Backend(Section):
    """How embeddings become scores; the word ``paper`` stands for exactly the paper's."""

    neighbours: Count = 2  # k of the k-NN, whose distances are averaged
    whiten: Annotated[float, Field(gt=0, le=1)] | None = 0.5  # shrinkage of the covariance; None: no whitening
    metric: Literal["cosine", "euclidean"] = "euclidean"
    density: Literal["none", "ratio", "difference"] = "ratio"  # distances relative to the bank's own
    density_neighbours: Count = 2  # of the bank's own distances, averaged
    banks: Literal["pooled", "by_domain"] = "pooled"

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, str):
            if value != "paper":
                raise ValueError("unknown back-end; allowed: paper, or a mapping of settings")
            return PAPER_BACKEND
        return value


class Scoring(Section):
    neighbours: Count = 2  # k of the k-NN
    index: Index = Index()
    autoencoder: ReconstructionScore = ReconstructionScore()
    mobilenet_class: Literal["recorded", "nearest"] = "nearest"  # the true class: the best fitting, or the clip's own
    threshold: Threshold = Threshold()


class Worker(Section):
    cpus: Annotated[float, Field(ge=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    memory_gb: Positive | None = None
    labels: dict[str, str] = {}  # Ray node labels that a worker's node must carry


class Resources(Section):
    augment: Worker = Worker()
    train: Worker = Worker()
    embed: Worker = Worker()
    embed_workers: Count | None = None  # at most; None: as many as the cluster holds
    index: Worker = Worker(cpus=0)  # an actor that holds the bank, or a shard of it; its CPUs are its threads
    index_workers: Count | None = None  # shards of the bank; None: as many as index.memory_gb makes necessary
    index_replicas: Count = 1  # of all shards


class Usage(Section):
    """How a trained system, or the floor, is used: none of it needs a new training."""

    inference: Inference = Inference()
    scoring: Scoring = Scoring()
    resources: Resources = Resources()


class Recipe(Usage):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    method: Literal["backbone", "autoencoder", "mobilenet"] = "backbone"  # the paper's, or one of its two baselines
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    audio: Audio = Audio()
    backbone: Backbone
    augmentation: Augmentation | None = None
    embedding: Embedding = Embedding()
    aam: AAM = AAM()
    training: FineTuning
    transformer_pooling: TransformerPooling | None = None
    autoencoder: AutoEncoder = AutoEncoder()
    mobilenet: MobileNet = MobileNet()
    calibration_fraction: Fraction = 0.1  # of the training clips, never trained on, kept to set thresholds

    @property
    def system(self) -> str:
        """The row's name in every table: the checkpoint where it is not the family's own, and what is switched on."""
        if self.method == "autoencoder":
            return {"mse": "AutoEncoder (MSE)", "mahalanobis": "AutoEncoder (Mahalanobis)"}[
                self.scoring.autoencoder.score
            ]
        if self.method == "mobilenet":
            return "MobileNet"
        switches = {"WS": self.backbone.weighted_sum, "SA": self.augmentation, "TFP": self.transformer_pooling}
        stand_in = self.backbone.family == "unispeech" or self.backbone.source
        checkpoint = f" ({self.backbone.checkpoint})" if stand_in else ""
        return "+".join([self.backbone.family, *(name for name, on in switches.items() if on)]) + checkpoint

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        pooling = self.transformer_pooling
        if pooling and self.embedding.dim % pooling.heads:
            raise ValueError(
                f"embedding.dim {self.embedding.dim} is not a multiple of transformer_pooling.heads {pooling.heads}"
            )
        return self


def packaged_recipes() -> list[str]:
    """Names that ``load`` finds without a path."""
    folder = package.files("ray_asd") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe of that packaged name or path, with ``key.sub=value`` overrides applied (values are YAML).

    Raises:
        UserError: no such recipe, not YAML, an unknown key, or a value or combination that cannot be.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no recipe file {name!r}")
        text = path.read_text()
    elif name in packaged_recipes():
        text = (package.files("ray_asd") / "recipes" / f"{name}.yaml").read_text()
    else:
        raise unknown("recipe", name, [*packaged_recipes(), "a path ending in .yaml"])
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"recipe {name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"recipe {name}: a mapping of settings is needed, not {type(values).__name__}")
    return _parsed(Recipe, values, overrides, f"recipe {name}")


def usage(base: Usage, overrides: tuple[str, ...] = ()) -> Usage:
    """How to use a trained system: as ``base`` says (a recipe, say), with ``key.sub=value`` overrides applied.

    Raises:
        UserError: an override of anything else, which would need a new training, or a wrong value.
    """
    values = {name: base.model_dump(mode="json")[name] for name in Usage.model_fields}
    return _parsed(Usage, values, overrides, "settings")


_Settings = TypeVar("_Settings", bound=Section)


def _parsed(kind: type[_Settings], values: dict[str, object], overrides: tuple[str, ...], name: str) -> _Settings:
    for override in overrides:
        _override(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{name}: {_first_mistake(kind, error)}") from error


def _override(values: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r} is not of the form key=value, e.g. training.steps=100")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.get(parent)
        if child is None:
            child = values[parent] = {}
        if not isinstance(child, dict):
            raise UserError(f"--set {override!r}: {parent!r} holds {child!r}, not settings")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: the value is not YAML") from error


def _first_mistake(kind: type[Section], error: ValidationError) -> str:
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    section, keys = _locate(kind, first["loc"])
    where = ".".join(keys)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; allowed: {', '.join(section.model_fields)}"
    if first["type"] == "missing" and len(keys) == len(first["loc"]):
        return f"{where}: this key is needed"
    alternatives = [m["msg"].removeprefix("Value error, ") for m in mistakes if _locate(kind, m["loc"])[1] == keys]
    message = " or ".join(alternatives)
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {first['input']!r}: {message}"


def _locate(section: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], list[str]]:
    """The innermost section that a mistake lies in, and its keys; what pydantic adds for unions is left out."""
    keys = []
    for part in location:
        keys.append(str(part))
        field = section.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
        if inner is None:
            break
        section = inner
    return section, keys
