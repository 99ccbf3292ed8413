"""What organisers publish beside recordings: labels and domains of anonymous clips, and attributes that were hidden.

Both are opt-in. Labels come as the organisers' list of evaluation clips (``eval_data_list_2023.csv``: a line with the
machine type, then lines ``anonymous.wav,telling.wav``, in 2020 with a third cell, 1 for an anomaly) or as the folder of
their evaluator (``ground_truth_data/`` and, if clips have domains, ``ground_truth_domain/``; in 2020 with that list;
``ground_truth_attributes/`` where it tells attributes, of which the last cell of a line tells most). Attributes come as
``<machine>/attributes_NN_{train,test}_correspondence.csv``, telling name before the name that hides them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ray_asd import store
from ray_asd.build import digest_of
from ray_asd.data import layouts
from ray_asd.data.csv_files import csv_lines
from ray_asd.data.csv_files import read_attributes as read_attributes_csv
from ray_asd.data.layouts import ParsedClip
from ray_asd.errors import UserError
from ray_asd.tables import DOMAINS, LABELS

_EVALUATOR = re.compile(r"ground_truth_(?P<machine_type>.+?)_(?:section|id)_\d+(?:_(?:source|target))?_test\.csv")
_CORRESPONDENCE = re.compile(r"(?:.*/)?(?P<machine_type>[^/]+)/attributes_\d+_(?:train|test)_correspondence\.csv")
_TEST = re.compile(r"(section_\d+)_test_(?=\d)")
_HEADER = ["source_file_name", "target_file_name"]
_OF_2022 = re.compile(r"(?P<machine_type>[^/]+)/attributes_\d+\.csv")
_LIST = re.compile(r"eval_data_list.*\.csv")
_ATTRIBUTES = "ground_truth_attributes"

Name = tuple[str, str]
"""Machine type and file name of a clip; files of different machine types share names."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is published of one clip; None: not this way."""

    label: str | None = None
    domain: str | None = None
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What is published of clips by name, and the files that say so, as entries of a listing."""

    clips: dict[Name, Known]
    entries: list[store.Entry]


def read_labels(uri: str, layout: str) -> Published:
    """The labels in the list or evaluator folder at ``uri``; ``layout`` says how the list's telling names are read.

    Raises:
        UserError: it is neither, or a line is malformed or contradicts another.
    """
    found: dict[Name, Known] = {}
    entries = []
    for place, machine_type in _label_files(uri):
        data, entry = _read(place)
        entries.append(entry)
        rows = _listed(data, place, layout) if machine_type is None else _judged(data, place, machine_type)
        for name, known in rows:
            before = found.get(name, Known())
            if known.label and before.label not in (None, known.label):
                raise UserError(f"{place}: {'/'.join(name)} is {known.label} here and {before.label} above")
            domain = known.domain or before.domain
            found[name] = Known(known.label or before.label, domain, known.attributes or before.attributes)
    if not any(known.label for known in found.values()):
        raise UserError(f"{uri}: no labels; allowed: a list of evaluation clips, or a folder with ground_truth_data/")
    return Published(found, entries)


def read_attributes(uri: str) -> Published:
    """The hidden attributes in the correspondence files below ``uri``, by the names that hide them.

    Raises:
        UserError: there is none, or one is malformed.
    """
    found: dict[Name, Known] = {}
    entries = []
    for below in store.listing(uri):
        match = _CORRESPONDENCE.fullmatch(f"{store.name(uri)}/{below.path}")
        if match is None:
            continue
        place = store.join(uri, below.path)
        data, entry = _read(place)
        entries.append(entry)
        lines = csv_lines(data, place)
        _, header = next(lines, (0, []))
        if header != _HEADER:
            raise UserError(f"{place}, line 1: {','.join(header)!r}; allowed: {','.join(_HEADER)}")
        for line, cells in lines:
            if len(cells) != 2:
                raise UserError(f"{place}, line {line}: {len(cells)} cells; two names are needed")
            telling, hiding = map(store.name, cells)
            found[match["machine_type"], _usual(hiding)] = Known(attributes=layouts.attributes_in(telling))
    if not entries:
        raise UserError(f"{uri}: no <machine>/attributes_NN_test_correspondence.csv or ..._train_... below it")
    return Published(found, entries)


def joined(path: str, clip: ParsedClip, labels: Published | None, attributes: Published | None) -> ParsedClip:
    """``clip`` at ``path`` with what is published of it; a label in its name stays.

    Raises:
        UserError: the labels are of its machine type, but not of this clip, which has none.
    """
    name = clip.machine_type, _usual(store.name(path))
    known = attributes.clips.get(name) if attributes else None
    if known and known.attributes is not None:
        clip = replace(clip, attributes=dict(known.attributes))
    if labels is None or clip.split != "test" or clip.label:
        return clip
    known = labels.clips.get(name)
    if known is None or known.label is None:
        if any(machine_type == clip.machine_type for machine_type, _ in labels.clips):
            raise UserError(f"{path}: the labels given have others of {clip.machine_type}, but not this clip")
        return clip
    told = clip.attributes or dict(known.attributes or {})
    return replace(clip, label=known.label, domain=known.domain or clip.domain, attributes=told)


def _usual(name: str) -> str:
    """``section_00_test_0001.wav`` as lists of labels call it, ``section_00_0001.wav``."""
    return _TEST.sub(r"\1_", name, count=1)


def _read(uri: str) -> tuple[bytes, store.Entry]:
    data = store.read(uri)
    return data, store.Entry(uri, len(data), digest_of(data.hex()))


def _label_files(uri: str) -> Iterator[tuple[str, str | None]]:
    """Each file with labels or domains; its machine type, if it is one of the evaluator's."""
    if not store.exists(uri):
        raise UserError(f"{uri}: nothing is there; allowed: a list of evaluation clips, or a folder of the evaluator")
    if not store.is_folder(uri):
        yield uri, None
        return
    for kind in ("ground_truth_data", "ground_truth_domain", _ATTRIBUTES):
        for entry in store.listing(store.join(uri, kind)):
            match = _EVALUATOR.fullmatch(entry.path)
            match = match or (_OF_2022.fullmatch(entry.path) if kind == _ATTRIBUTES else None)
            if match:
                yield store.join(uri, kind, entry.path), match["machine_type"]
    for name in store.files(uri):
        if _LIST.fullmatch(name):
            yield store.join(uri, name), None


def _listed(data: bytes, place: str, layout: str) -> Iterator[tuple[Name, Known]]:
    machine_type = ""
    for line, cells in csv_lines(data, place):
        cells = [cell for cell in cells if cell]
        if len(cells) == 1 and not layouts.is_audio(cells[0]):
            machine_type = cells[0]
            continue
        told = layouts.parse(layout, f"{machine_type}/test/{cells[1]}") if machine_type and len(cells) > 1 else None
        if told is None or not told.label:
            expected = f"a machine type, or an anonymous name and one of layout {layout} with its label"
            raise UserError(f"{place}, line {line}: {','.join(cells)!r}; allowed: {expected}")
        if len(cells) > 2 and cells[2] != str(LABELS.index(told.label)):
            raise UserError(f"{place}, line {line}: {cells[1]!r} is {told.label}, but the last cell is {cells[2]!r}")
        yield (machine_type, _usual(cells[0])), Known(told.label, told.domain, told.attributes)


def _judged(data: bytes, place: str, machine_type: str) -> Iterator[tuple[Name, Known]]:
    if store.name(place).startswith("attributes_"):
        for file, pairs in read_attributes_csv(data, place).items():
            yield (machine_type, _usual(file)), Known(attributes=pairs)
        return
    kind = store.name(store.parent(place))
    for line, cells in csv_lines(data, place):
        name = machine_type, _usual(cells[0])
        if kind == _ATTRIBUTES:
            if len(cells) < 2:
                raise UserError(f"{place}, line {line}: {','.join(cells)!r}; allowed: a file name and names that tell")
            told = (layouts.attributes_in(cell) for cell in reversed(cells[1:]))
            yield name, Known(attributes=next(filter(None, told), {}))
        elif len(cells) != 2 or cells[1] not in ("0", "1"):
            raise UserError(f"{place}, line {line}: {','.join(cells)!r}; allowed: a file name and 0 or 1")
        elif kind == "ground_truth_data":
            yield name, Known(label=LABELS[int(cells[1])])
        else:
            yield name, Known(domain=DOMAINS[int(cells[1])])
