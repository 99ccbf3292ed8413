"""What a recipe says, as frozen models that refuse contradictions; the unit of each value stands in its comment."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ray_asd.config.scoring import Scoring
from ray_asd.config.section import Count, Fraction, Positive, Section

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
    pooling: Literal["mean", "statistics", "attentive_statistics"] = "mean"  # over time
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


class Worker(Section):
    cpus: Annotated[float, Field(ge=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    memory_gb: Positive | None = None
    labels: dict[str, str] = Field(default_factory=dict)  # Ray node labels that a worker's node must carry


class Resources(Section):
    ingest: Worker = Worker()
    augment: Worker = Worker()
    train: Worker = Worker()
    embed: Worker = Worker()
    embed_workers: Count | None = None  # at most; None: as many as the cluster holds
    index: Worker = Worker(cpus=0)  # an actor that holds the banks of some groups; its CPUs are its threads
    index_workers: Count | None = None  # to deal groups out to; None: none for small banks, else as memory_gb needs
    index_replicas: Count = 1  # of all of them


class Usage(Section):
    """How a model, or features, are used: none of it needs a new training."""

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
    training: FineTuning | None  # None: the backbone as it is, frozen, whose pooled states are the embedding
    transformer_pooling: TransformerPooling | None = None
    autoencoder: AutoEncoder = AutoEncoder()
    mobilenet: MobileNet = MobileNet()
    calibration_fraction: Fraction = 0.1  # of the training clips, never trained on, kept to set thresholds

    @property
    def is_trained(self) -> bool:
        """Whether it has seen the clips; a frozen backbone has not."""
        return self.training is not None or self.method != "backbone"

    @property
    def fine_tuning(self) -> FineTuning:
        """The training of a backbone that is trained."""
        assert self.training is not None, "a frozen backbone has none"
        return self.training

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
        switches["frozen"] = not self.is_trained
        stand_in = self.backbone.family == "unispeech" or self.backbone.source
        checkpoint = f" ({self.backbone.checkpoint})" if stand_in else ""
        return "+".join([self.backbone.family, *(name for name, on in switches.items() if on)]) + checkpoint

    @model_validator(mode="after")
    def _frozen_is_without_training(self) -> Self:
        if self.is_trained:
            return self
        if self.augmentation or self.transformer_pooling:
            raise ValueError("training null leaves augmentation and transformer_pooling without use; allowed: null")
        if self.embedding.pooling == "attentive_statistics":
            raise ValueError("training null leaves attentive_statistics untrained; allowed: mean, statistics")
        return self

    @model_validator(mode="after")
    def _a_rank_has_a_gpu_of_its_own(self) -> Self:
        gpus = self.resources.train.gpus
        trainings = [part for part in (self.training, self.transformer_pooling) if part]
        workers = max((training.workers for training in trainings), default=1)
        if gpus > 1:
            raise ValueError(f"resources.train.gpus {gpus:g}: a worker trains on one GPU; allowed: 0 to 1")
        if 0 < gpus < 1 and workers > 1:
            raise ValueError(
                f"resources.train.gpus {gpus:g} with {workers} workers: NCCL takes no two on one GPU; allowed: 1"
            )
        return self

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        pooling = self.transformer_pooling
        if pooling and self.embedding.dim % pooling.heads:
            raise ValueError(
                f"embedding.dim {self.embedding.dim} is not a multiple of transformer_pooling.heads {pooling.heads}"
            )
        return self
