"""The tables that the stages hand on, as portable Arrow schemas: to learn what the program does, read this file.

    recordings --ingest--> CLIPS --train--> MODEL --enroll--> DETECTOR --score--> SCORES --evaluate--> METRICS
                             |___________________________________^  |

What a model says of healthy clips, EMBEDDINGS or a baseline's DIRECT scores, is kept in its DETECTOR as HEALTHY with
CALIBRATION, THRESHOLDS and SELF_TEST. SCORES of several systems are compared in CELLS and PAIRS.

A ``clip_id`` is the data set's name and the POSIX path below its source (``fleet/fan/test/a.wav``): unique among CLIPS,
and the same on disk and on S3. Two CLIPS may use one for two recordings: which recording it is, ``content_hash`` says
(sha256 of the file). A null means unknown, never zero or empty.
"""

import numpy as np
import pyarrow as pa

from ray_asd.errors import StageError


class Folder:
    """Where a stage's output holds each table."""

    CLIPS = "clips"
    REJECTS = "rejects"
    INSPECTED = "inspected"
    PACKS = "packs"
    TRAINING_SET = "index"
    WAVES = "waves"  # float32 samples, one clip after the other
    CHUNKS = "chunks"
    EMBEDDINGS = "embeddings"
    DIRECT = "direct"
    TRAINED = "trained"
    HEALTHY = "healthy"
    CALIBRATION = "calibration"
    THRESHOLDS = "thresholds"
    SELF_TEST = "self_test"
    SCORES = "scores"
    UNSCORED = "unscored"
    METRICS = "metrics"
    CELLS = "cells"
    PAIRS = "pairs"


SPLITS = ("train", "calibration", "test", "supplemental")
DOMAINS = ("source", "target")
LABELS = ("normal", "anomaly")

_CLIP_KEYS = [
    *(pa.field(name, pa.string(), nullable=False) for name in ("clip_id", "machine_type", "section")),
    pa.field("domain", pa.string()),
    pa.field("split", pa.string(), nullable=False),
    pa.field("label", pa.string()),
]
_RECORDING = [
    pa.field(name, pa.string(), nullable=False) for name in ("machine_type", "section", "clip_id", "content_hash")
]

CLIPS = pa.schema(
    [
        *_CLIP_KEYS,
        *(pa.field(name, pa.string(), nullable=False) for name in ("uri", "dataset")),
        pa.field("machine_id", pa.string()),
        pa.field("recorded_at", pa.timestamp("us", tz="UTC")),
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
        pa.field("condition", pa.string()),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("sample_rate", "channels")),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("num_samples", "size_bytes")),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string()),
        pa.field("dead_channels", pa.list_(pa.int32())),
        pa.field("streamed", pa.bool_()),
        *(pa.field(name, pa.float64()) for name in ("level", "clipped")),
        pa.field("pack", pa.string()),
        pa.field("pack_row", pa.int64()),
    ]
)
"""One row per accepted recording. ``condition`` is the class trained on: machine type and attribute values.

``dead_channels`` (from 0) are constant throughout, null where none is. ``streamed`` is true where the file does not say
how long it is, and was taken as it is (``--accept streamed``). ``level`` is the RMS of the other channels in dB of full
scale, ``clipped`` the share of their samples at full scale; an ingest of an earlier version has measured neither.
``duplicate_of`` is the first clip_id with the same content. Of a packed recording the bytes stand in row ``pack_row``
of the PACK at ``pack``; ``uri`` is where they came from."""

OF_SOUND = ("dead_channels", "streamed", "level", "clipped")
"""Columns of CLIPS that training has no use for."""

PACK = pa.schema(
    [pa.field("clip_id", pa.string(), nullable=False), pa.field("recording", pa.large_binary(), nullable=False)]
)
"""Recordings as they were, byte by byte, many in one file."""

REJECTS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("uri", "reason", "detail")),
        pa.field("size_bytes", pa.int64()),
    ]
)
"""One row per file that was seen and not taken; ``reason`` is a key of ``reasons.REJECTED``."""

INSPECTED = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("uri", "version", "content_hash")),
        pa.field("size_bytes", pa.int64(), nullable=False),
        *(CLIPS.field(name).with_nullable(True) for name in ("sample_rate", "channels", "num_samples")),
        *(CLIPS.field(name) for name in OF_SOUND),
        *(pa.field(name, pa.string()) for name in ("reason", "detail")),
    ]
)
"""One row per recording that was read: what its content is, or why it is none that is taken.

It holds as long as a listing says the same ``version`` (etag, modification time, CRC-32) and size of the file."""

TRAINING_SET = pa.schema(
    [
        *(field for field in CLIPS if field.name not in OF_SOUND),
        pa.field("parent_clip_id", pa.string()),
        pa.field("speed", pa.float64(), nullable=False),
        pa.field("mode", pa.string()),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("std", pa.float64(), nullable=False),
    ]
)
"""CLIPS rows whose decoded waveform (float32, 16 kHz, mono) lies in ``shard`` at ``offset``, ``length`` samples long.

A status-augmented clip carries ``parent_clip_id``, its ``speed`` factor and its ``mode``; an original has speed 1.
``mean`` and ``std`` are the whole waveform's, for backbones that want normalised input."""

DIRECT = pa.schema(
    [
        *_CLIP_KEYS,
        pa.field("machine_id", pa.string()),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
"""One row per healthy clip that a baseline scores by itself, without a bank; null for those it was trained on."""

HEALTHY = pa.schema(
    [
        *_RECORDING,
        pa.field("domain", pa.string()),
        pa.field("role", pa.string(), nullable=False),
        pa.field("twins", pa.list_(pa.string()), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
"""One row per healthy recording that a model of a detector knows, in the order of its vectors: of a machine type and
section first those in the bank, then the others, each by content_hash. ``twins`` are the other clip_ids it goes by; two
recordings may go by the same.

``role``: ``bank`` clips were never trained on, ``trained`` ones were (for a baseline without a bank: nothing else
counts), ``unseen`` ones are neither trained on nor in the bank. ``score`` is a baseline's own."""

CALIBRATION = pa.schema(
    [
        *_RECORDING,
        pa.field("domain", pa.string()),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Scores of healthy clips as a detector gives them to clips it has never seen: of clips that are not in the bank
(``calibration``), or of bank clips each left out in turn (``leave_one_out``)."""

SELF_TEST = pa.schema(
    [
        pa.field("member", pa.int64(), nullable=False),
        *_RECORDING,
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
"""Embeddings, and the score that each must get wherever the detector is loaded."""

SCORES = pa.schema(
    [
        *_CLIP_KEYS,
        pa.field("machine_id", pa.string()),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("decision", pa.int8()),
        pa.field("p_value", pa.float64()),
        *(pa.field(name, pa.list_(pa.string()), nullable=False) for name in ("neighbours", "neighbour_hashes")),
        pa.field("distances", pa.list_(pa.float64()), nullable=False),
        pa.field("system", pa.string(), nullable=False),
        pa.field("model_digest", pa.string(), nullable=False),
        pa.field("version", pa.string()),
    ]
)
"""One row per scored clip. ``decision`` is 1 when ``score`` exceeds ``threshold``; both null without a threshold.
``neighbours`` are the clip_ids of the healthy recordings nearest to it, ``neighbour_hashes`` their contents.

``p_value`` is conformal: the share of healthy clips, this one counted among them, that score as high; null with fewer
than 20 of them. ``version`` is the detector's in its registry; null where it was not released."""

UNSCORED = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("clip_id", "machine_type", "section", "reason", "detail")]
)
"""One row per clip that could not be embedded or scored; ``reason`` is a key of ``reasons.UNSCORED``."""

THRESHOLDS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("machine_type", "section")),
        pa.field("threshold", pa.float64()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("method", "source")),
        pa.field("false_positive_rate", pa.float64()),
        pa.field("num_clips", pa.int64(), nullable=False),
        pa.field("num_above", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("rate_low", "rate_high")),
        *(pa.field(f"false_alarms_{domain}", pa.float64()) for domain in DOMAINS),
    ]
)
"""Where each threshold comes from: ``source`` says which normal clips it was fitted on, or why there is none.

``num_above`` of those ``num_clips`` calibration clips exceed it, ``false_alarms_source`` and ``false_alarms_target``
are their shares by domain. The rate that it aims at is ``false_positive_rate``, and with 90% probability its true one
lies between ``rate_low`` and ``rate_high`` (``scoring.scores.fit_threshold``)."""

METRICS = pa.schema(
    [
        pa.field("system", pa.string(), nullable=False),
        pa.field("seed", pa.int64()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("machine_type", "section", "protocol")),
        *(pa.field(name, pa.float64()) for name in ("auc_source", "auc_target", "auc_all", "pauc", "hmean")),
        *(pa.field(f"pauc_{domain}", pa.float64()) for domain in DOMAINS),
        *(pa.field(f"{name}_{domain}", pa.float64()) for name in ("precision", "recall", "f1") for domain in DOMAINS),
        *(pa.field(f"num_{label}", pa.int64(), nullable=False) for label in LABELS),
        *(pa.field(f"num_{domain}_{label}", pa.int64(), nullable=False) for domain in DOMAINS for label in LABELS),
    ]
)
"""One row per system, machine type and section. ``protocol`` says what the AUCs are of and which figures count
(``scoring.protocols``); ``pauc_source`` and ``pauc_target`` are figures of 2021 alone. The all-machine
figure and its interval stand in the marker."""

CELLS = pa.schema(
    [
        pa.field("system", pa.string(), nullable=False),
        pa.field("seeds", pa.list_(pa.int64()), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("mean", "low", "high")),
        pa.field("std", pa.float64()),
    ]
)
"""One row per compared system: mean and standard deviation of its all-machine figure over its seeds, and the interval
of the mean over clips. ``std`` is null with one seed; features without training may have none."""

PAIRS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("system_a", "system_b")),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("difference", "low", "high")),
    ]
)
"""One row per pair of compared systems: by how much the figure of a exceeds b's, and the paired interval over clips."""


def embeddings(dim: int) -> pa.Schema:
    """The EMBEDDINGS schema for vectors of ``dim`` float32 values, one row per clip."""
    return pa.schema(
        [
            *_CLIP_KEYS,
            pa.field("machine_id", pa.string()),
            pa.field("condition", pa.string()),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def as_column(vectors: np.ndarray) -> pa.Array:
    """Vectors [N, E] as a column of N fixed-size lists of float32."""
    flat = np.ascontiguousarray(vectors, np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])


def vectors(embeddings: pa.Table, column: str = "embedding") -> np.ndarray:
    """That column of EMBEDDINGS as float32 [N, E]."""
    flat: np.ndarray = embeddings[column].combine_chunks().flatten().to_numpy()
    return flat.reshape(embeddings.num_rows, -1)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with exactly the columns, types and order of ``schema``.

    Raises:
        StageError: a column is missing, cannot be cast, or holds nulls where none are allowed.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise StageError(f"table lacks column(s) {', '.join(missing)}; it has {', '.join(table.column_names)}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise StageError(f"table does not fit its schema: {error}") from error
