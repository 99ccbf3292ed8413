"""How embeddings become scores, and scores decisions."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ray_asd.config.section import Count, Section


class Threshold(Section):
    method: Literal["gamma", "quantile", "manual"] = "quantile"
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

    @property
    def is_paper(self) -> bool:
        """Whether plain cosines are compared, by the paper's exact k-NN, whatever the k."""
        return (self.metric, self.whiten, self.density, self.banks) == ("cosine", None, "none", "pooled")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, str):
            if value != "paper":
                raise ValueError("unknown back-end; allowed: paper, or a mapping of settings")
            return PAPER_BACKEND
        return value


class Scoring(Section):
    backend: Backend = Backend()
    index: Index = Index()
    autoencoder: ReconstructionScore = ReconstructionScore()
    mobilenet_class: Literal["recorded", "nearest"] = "nearest"  # the true class: the best fitting, or the clip's own
    threshold: Threshold = Threshold()

    @model_validator(mode="after")
    def _index_of_cosines(self) -> Self:
        if self.index.kind != "exact" and not self.backend.is_paper:
            raise ValueError(f"index.kind {self.index.kind!r} needs scoring.backend paper; allowed: exact")
        return self
