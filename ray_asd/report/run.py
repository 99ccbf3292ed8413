"""One run: SCORES, the METRICS made of them where labels are known, and all that lies behind both."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from ray_asd import build, store, tables
from ray_asd.build import Output, archive
from ray_asd.models.card import CARD, ModelCard, read_card
from ray_asd.report.rows import Find, Row, collect, first_enrolled, models_of
from ray_asd.scoring.copies import counted

_JUDGED = ["clip_id", "machine_type", "section", "domain", "label", "content_hash", "score", "threshold", "decision"]
_MAX_NAMED = 40  # files, of one output in one section


@dataclass(frozen=True)
class Run:
    """What a page is about. ``metrics`` is None where no labels are known, ``scores`` where a submission was judged.

    ``baseline`` is the row of the detector without training on the same clips; ``bank`` holds the CLIPS of the
    neighbours.
    """

    system: str
    seed: int | None
    row: Row | None
    baseline: Row | None
    metrics: Output | None
    scores: Output | None
    model: Output | None
    card: ModelCard | None
    clips: Output | None
    bank: Output | None
    stages: Sequence[Output]

    @property
    def is_baseline(self) -> bool:
        """Whether this is the detector without training."""
        return self.scores is not None and _is_untrained(self.scores)

    @property
    def name(self) -> str:
        """Of its page: the system in letters that any file system takes, and a digest that is no other run's."""
        words = "".join(letter if letter.isalnum() else "-" for letter in self.system.lower())
        plain = "-".join(part for part in words.split("-") if part)[:48]
        seed = "" if self.seed is None else f"-seed{self.seed}"
        shown = self.scores or self.metrics
        digest = build.digest_of([self.system, self.seed, shown.marker.digest if shown else None])
        return f"{plain}{seed}-{digest[:8]}"

    @cached_property
    def judged(self) -> pa.Table:
        """The SCORES without neighbours, in order of clip_id: what each clip is, its score and its threshold."""
        if self.scores is None:
            return tables.SCORES.empty_table().select(_JUDGED)
        return columns(self.scores, "scores", _JUDGED).sort_by("clip_id")

    def sections(self) -> Iterator[tuple[str, str, pa.Table]]:
        """Each machine type and section with its part of ``judged``, copies of a clip left out."""
        judged = self.judged.filter(pa.array(counted(self.judged)))
        table = judged.sort_by([(name, "ascending") for name in ("machine_type", "section", "clip_id")])
        sizes = table.group_by(["machine_type", "section"], use_threads=False).aggregate([([], "count_all")])
        begin = 0
        for row in sizes.to_pylist():
            yield row["machine_type"], row["section"], table.slice(begin, row["count_all"])
            begin += row["count_all"]


def columns(
    output: Output, folder: str, names: Sequence[str], where: tuple[str, str, Sequence[str]] | None = None
) -> pa.Table:
    """Some columns of the committed Parquet files below ``folder``, and of the rows that ``where`` (column, "in",
    values) picks only. What a table of an earlier version lacks is null.

    One file at a time is in memory: the tables may have millions of rows, of which a page shows few.
    """
    parts = [_columns(output.read(file.path), names, where) for file in output.files(folder)]
    return pa.concat_tables(parts)


def _columns(content: bytes, names: Sequence[str], where: tuple[str, str, Sequence[str]] | None) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(content))
    there = [name for name in names if name in file.schema_arrow.names]
    table = pq.read_table(pa.BufferReader(content), columns=there, filters=where and [where])
    for name in [name for name in names if name not in there]:
        field = tables.SCORES.field(name)
        table = table.append_column(name, pa.nulls(table.num_rows, field.type))
    return table.select(list(names))


def files_of(output: Output | None, *folders: str) -> list[str]:
    """URIs of the committed files below the folders, or of the marker that lists them where they are many."""
    if output is None:
        return []
    uris = [output.file_uri(file.path) for folder in folders for file in output.files(folder)]
    return uris if len(uris) <= _MAX_NAMED else [marker_of(output)]


def marker_of(output: Output) -> str:
    """Where the marker stands."""
    return store.join(output.uri, build.MARKER)


def runs(metrics: Iterable[Output], scores: Iterable[Output]) -> list[Run]:
    """A run per system and seed of METRICS, and one per SCORES that no METRICS were made of."""
    find = cache(build.find)
    found: dict[object, Run] = {}
    for output in metrics:
        for run in _judged_by(output, find):
            found[(run.scores.uri if run.scores else output.uri, run.system, run.seed)] = run
    known = {run.scores.uri for run in found.values() if run.scores}
    alone = [_run(output, find) for output in scores if output.uri not in known]
    return [*found.values(), *alone]


def _judged_by(metrics: Output, find: Find) -> Iterator[Run]:
    rows = collect([metrics])
    baselines = [row for row in rows if row.origin and _is_untrained(row.origin.scores)]
    for row in rows:
        origin = row.origin
        if origin is None:
            yield Run(row.system, row.seed, row, None, metrics, None, None, None, None, None, [metrics])
            continue
        heard = origin.clips
        same = [baseline for baseline in baselines if baseline.origin and heard and baseline.origin.clips == heard]
        same.sort(key=lambda baseline: (baseline.system, baseline.seed) != row.baseline)
        yield _run(origin.scores, find, row, same[0] if same else None, metrics)


def _is_untrained(scores: Output) -> bool:
    """Whether features without training gave them."""
    return not scores.marker.summary.get("trained", True)


def _run(
    scores: Output, find: Find, row: Row | None = None, baseline: Row | None = None, metrics: Output | None = None
) -> Run:
    inputs = scores.marker.inputs
    detector = find(inputs["detector"].uri)
    model = next(iter(models_of(detector, find)), None)
    stages = [*([metrics] if metrics else []), *archive.lineage(scores, find)]
    summary = scores.marker.summary
    return Run(
        row.system if row else summary["system"],
        summary["seed"],
        row,
        baseline,
        metrics,
        scores,
        model,
        read_card(model.fetch(CARD)) if model else None,
        find(inputs["clips"].uri),
        _bank(detector, find),
        stages,
    )


def _bank(detector: Output | None, find: Find) -> Output | None:
    """The CLIPS that a clip's neighbours are among."""
    inputs = first_enrolled(detector, find)
    return find(inputs["clips"].uri) if "clips" in inputs else None
