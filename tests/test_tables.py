"""The schemas promise portable types, and ``conform`` holds tables to them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_asd import fleet_tables, reasons, tables
from ray_asd.errors import StageError

SCHEMAS = {
    name: getattr(tables, name)
    for name in ("CLIPS", "REJECTS", "TRAINING_SET", "SCORES", "THRESHOLDS", "METRICS", "CELLS", "PAIRS")
} | {"EMBEDDINGS": tables.embeddings(3)}
SCHEMAS |= {name: getattr(fleet_tables, name) for name in ("NIGHTS", "DECISIONS", "ALERTS", "SOUNDS", "DRIFT")}
REJECT = {"uri": "s3://b/a.wav", "reason": "silent", "detail": "", "size_bytes": 44}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_schemas_are_portable(schema: pa.Schema) -> None:
    assert len(set(schema.names)) == len(schema.names)
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in schema)
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    assert pq.read_schema(pa.BufferReader(sink.getvalue())).equals(schema)


def test_clip_id_keys_every_table_of_clips() -> None:
    for name in ("CLIPS", "TRAINING_SET", "SCORES", "EMBEDDINGS"):
        assert not SCHEMAS[name].field("clip_id").nullable
    assert tables.embeddings(3).field("embedding").type == pa.list_(pa.float32(), 3)
    assert set(tables.CLIPS.names) - set(tables.OF_SOUND) < set(tables.TRAINING_SET.names)


def test_metrics_has_a_column_for_each_cell() -> None:
    names = tables.METRICS.names
    assert [name for name in names if name.startswith("num_")] == [
        "num_normal",
        "num_anomaly",
        "num_source_normal",
        "num_source_anomaly",
        "num_target_normal",
        "num_target_anomaly",
    ]
    assert {"precision_source", "recall_target", "f1_source"} < set(names)


def test_conform_orders_casts_and_drops() -> None:
    table = pa.table(
        {"size_bytes": pa.array([44], pa.int16()), "more": [1], "detail": [""]}
        | {
            "reason": ["silent"],
            "uri": ["s3://b/a.wav"],
        }
    )
    assert tables.conform(table, tables.REJECTS) == pa.Table.from_pylist([REJECT], schema=tables.REJECTS)


def test_conform_keeps_unknown_as_null() -> None:
    table = pa.Table.from_pylist([REJECT | {"size_bytes": None}])
    assert tables.conform(table, tables.REJECTS).column("size_bytes").to_pylist() == [None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"uri": "s3://b/a.wav", "detail": ""}, r"lacks column\(s\) reason, size_bytes; it has uri, detail"),
        (REJECT | {"size_bytes": "big"}, "does not fit its schema: .*big"),
        (REJECT | {"size_bytes": 1.5}, r"does not fit its schema: .*1\.5"),
        (REJECT | {"reason": None}, "does not fit its schema: .*'reason' with null values"),
        (REJECT | {"uri": {"bucket": "b"}}, "does not fit its schema: .*struct"),
    ],
)
def test_conform_refuses(row: dict[str, object], message: str) -> None:
    with pytest.raises(StageError, match=message):
        tables.conform(pa.Table.from_pylist([row]), tables.REJECTS)


def test_conform_refuses_embeddings_of_another_dimension() -> None:
    schema = tables.embeddings(3)
    row = dict.fromkeys(schema.names, "x") | {"embedding": [1.0, 2.0]}
    with pytest.raises(StageError, match="does not fit its schema"):
        tables.conform(pa.Table.from_pylist([row]), schema)


def test_every_reason_is_explained() -> None:
    assert all(code == code.lower().replace(" ", "_") and text for code, text in reasons.REJECTED.items())
