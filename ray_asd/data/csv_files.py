"""CSV files that come with recordings: the attributes of clips, and lists of clips."""

import codecs
import csv
import io
import posixpath
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, groupby
from operator import itemgetter
from typing import IO

import pyarrow as pa

from ray_asd.data.layouts import HEALTHY_SPLITS, NO_ATTRIBUTE, ONLY_SECTION, ParsedClip, checked_split, clip_id, in_utc
from ray_asd.data.listed import LISTED, TOLD, told
from ray_asd.data.spooled import Spooled
from ray_asd.errors import UserError, unknown
from ray_asd.tables import DOMAINS, LABELS

NAMED = pa.schema([LISTED.field(name) for name in ("uri", *TOLD)])
"""What a CSV file says of each clip. ``uri`` stands there."""
_PLACES = pa.schema([("place", pa.string()), ("uri", pa.string()), ("line", pa.int64())])


def read_attributes(data: bytes, name: str) -> dict[str, dict[str, str]]:
    """An attribute CSV (``file_name,d1p,d1v,d2p,d2v,...``, ragged) as basename -> {parameter: value}.

    Raises:
        UserError: the file called ``name`` is malformed, with the line.
    """
    lines = csv_lines(data, name)
    _, header = next(lines, (0, [""]))
    if header[0] != "file_name":
        raise UserError(f"{name}, line 1: an attribute CSV begins with file_name,d1p,d1v, not {','.join(header)!r}")
    table: dict[str, dict[str, str]] = {}
    for line, (path, *cells) in lines:
        where, basename = f"{name}, line {line}", re.split(r"[/\\]", path)[-1]
        keys, values = cells[::2], cells[1::2] + [""] * (len(cells) % 2)
        known = [(key, value) for key, value in zip(keys, values, strict=True) if value and key != NO_ATTRIBUTE]
        pairs = dict(known)
        if "" in pairs or len(pairs) < len(known):
            raise UserError(f"{where}: pairs of distinct parameters and values are needed, not {','.join(cells)!r}")
        if not basename or table.get(basename, pairs) != pairs:
            raise UserError(f"{where}: {path!r} names no file, or one that has other attributes above")
        table[basename] = pairs
    return table


def csv_lines(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """The (line number, stripped cells) of every line of the CSV file ``name`` that is not empty.

    Raises:
        UserError: not UTF-8, or not CSV.
    """
    check_text([data], name)
    yield from _lines(io.BytesIO(data), name)


def check_text(parts: Iterable[bytes], name: str) -> None:
    """
    Raises:
        UserError: what these are parts of is not UTF-8.
    """
    decoder, start = codecs.getincrementaldecoder("utf-8")(), 0
    for part in chain(parts, [b""]):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            at = start - pending + error.start
            raise UserError(f"{name}: not UTF-8 text: {error.reason} at byte {at}") from error
        start += len(part)


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not CSV: {error}") from error


def read_csv(file: IO[bytes], name: str, split: str | None = None) -> Spooled:
    """The CSV of clips ``name``, UTF-8, as rows of NAMED in order; ``split`` where the file has none.

    Columns: ``uri`` (relative to the CSV's folder, absolute or ``s3://``) and ``machine_type``; section, machine_id,
    recorded_at (ISO 8601, UTC unless it states an offset), domain, split, label; any other, also as ``attr.<name>``,
    is an attribute. An empty cell is unknown. Clips for training and calibration are normal unless labelled.

    Raises:
        UserError: the first line that is wrong, with the allowed values.
    """
    found, places = Spooled(NAMED), Spooled(_PLACES)
    try:
        for line, uri, row in _rows(_lines(file, name), name):
            places.add(place=clip_id("", uri), uri=uri, line=line)
            found.add(uri=uri, **told(_row(row, split, f"{name}, line {line}")))
    except UserError:
        _check_once(places, name)
        raise
    _check_once(places, name)
    return found


def _rows(lines: Iterator[tuple[int, list[str]]], name: str) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Number, URI and other cells of each line."""
    _, header = next(lines, (0, []))
    missing = [column for column in ("uri", "machine_type") if column not in header]
    if missing:
        raise UserError(f"{name}: no column {' or '.join(missing)}; found: {', '.join(header) or 'nothing'}")
    names = [column.removeprefix("attr.") for column in header]
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{name}, line 1: every column needs a name of its own, not {','.join(header)!r}")
    for line, cells in lines:
        where = f"{name}, line {line}"
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells; the header has {len(header)}")
        row = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
        yield line, _uri(row.pop("uri", ""), where, name.startswith("s3://")), row


def _check_once(places: Spooled, name: str) -> None:
    """
    Raises:
        UserError: two lines name the same recording; the first such line.
    """
    repeated: list[tuple[int, str, int]] = []
    for _, rows in groupby(places.in_order("place").rows(), itemgetter("place")):
        first, *others = rows
        repeated = sorted(repeated + [(row["line"], row["uri"], first["line"]) for row in others])[:1]
    for line, uri, earlier in repeated:
        raise UserError(f"{name}, line {line}: uri {uri!r} stands in line {earlier} already")


def _uri(uri: str, where: str, below_keys: bool) -> str:
    """``uri`` without what a path can do without; a key of an object store (``below_keys``) may have empty parts."""
    scheme, separator, _ = uri.partition("://")
    allowed = "allowed: a path below the CSV's folder, an absolute path, s3://bucket/key"
    if not uri or (separator and scheme != "s3"):
        raise UserError(f"{where}: uri {uri!r}; {allowed}")
    if separator:
        return uri
    if not below_keys or {".", ".."} & set(uri.split("/")):
        uri = posixpath.normpath(uri)
    if uri in (".", "..") or uri.startswith("../"):
        raise UserError(f"{where}: uri {uri!r}; {allowed}")
    return uri


def _row(row: dict[str, str], split: str | None, where: str) -> ParsedClip:
    machine_type, section, machine_id = (
        row.pop("machine_type", ""),
        row.pop("section", ONLY_SECTION),
        row.pop("machine_id", None),
    )
    if not machine_type:
        raise UserError(f"{where}: machine_type is empty; allowed: any name")
    split = checked_split(row.pop("split", split), where)
    domain, label = row.pop("domain", None), row.pop("label", None)
    for what, value, allowed in (("domain", domain, DOMAINS), ("label", label, LABELS)):
        if value and value not in allowed:
            raise unknown(f"{what} ({where})", value, [*allowed, "nothing"])
    if split in HEALTHY_SPLITS:
        if label == "anomaly":
            raise UserError(f"{where}: label 'anomaly' in split {split!r}; allowed there: normal or nothing")
        label = "normal"
    recorded_at = _instant(row.pop("recorded_at", None), where)
    attributes = {column.removeprefix("attr."): value for column, value in row.items()}
    return ParsedClip(machine_type, section, machine_id, domain, split, label, attributes, recorded_at)


def _instant(text: str | None, where: str) -> datetime | None:
    if text is None:
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: recorded_at {text!r}; allowed: ISO 8601, such as 2026-01-31T06:00:00Z") from error
