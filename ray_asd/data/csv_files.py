"""CSV files that come with recordings: the attributes of clips, and lists of clips."""

import csv
import io
import posixpath
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from ray_asd.data.layouts import HEALTHY_SPLITS, NO_ATTRIBUTE, ONLY_SECTION, ParsedClip, checked_split, clip_id
from ray_asd.errors import UserError, unknown
from ray_asd.tables import DOMAINS, LABELS


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
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for cells in reader:
            if any(cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not CSV: {error}") from error


def read_csv(data: bytes, name: str, split: str | None = None) -> dict[str, ParsedClip]:
    """The CSV of clips ``name`` as uri -> clip, in order; ``split`` where the file has none.

    Columns: ``uri`` (relative to the CSV's folder, absolute or ``s3://``) and ``machine_type``; section, machine_id,
    recorded_at (ISO 8601, UTC unless it states an offset), domain, split, label; any other, also as ``attr.<name>``,
    is an attribute. An empty cell is unknown. Clips for training and calibration are normal unless labelled.

    Raises:
        UserError: the first line that is wrong, with the allowed values.
    """
    lines = csv_lines(data, name)
    _, header = next(lines, (0, []))
    missing = [column for column in ("uri", "machine_type") if column not in header]
    if missing:
        raise UserError(f"{name}: no column {' or '.join(missing)}; found: {', '.join(header) or 'nothing'}")
    names = [column.removeprefix("attr.") for column in header]
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{name}, line 1: every column needs a name of its own, not {','.join(header)!r}")
    clips: dict[str, ParsedClip] = {}
    seen: dict[str, int] = {}
    for line, cells in lines:
        where = f"{name}, line {line}"
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells; the header has {len(header)}")
        row = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
        uri = _uri(row.pop("uri", ""), where)
        if (earlier := seen.setdefault(clip_id("", uri), line)) != line:
            raise UserError(f"{where}: uri {uri!r} stands in line {earlier} already")
        clips[uri] = _row(row, split, where)
    return clips


def _uri(uri: str, where: str) -> str:
    scheme, separator, _ = uri.partition("://")
    allowed = "allowed: a path below the CSV's folder, an absolute path, s3://bucket/key"
    if not uri or (separator and scheme != "s3"):
        raise UserError(f"{where}: uri {uri!r}; {allowed}")
    if separator:
        return uri
    uri = posixpath.normpath(uri)
    if uri == "." or uri.startswith(".."):
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
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{where}: recorded_at {text!r}; allowed: ISO 8601, such as 2026-01-31T06:00:00Z") from error
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
