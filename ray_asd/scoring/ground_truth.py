"""What the organisers publish to judge submissions by: the labels of their evaluation clips, as each year's files tell.

- 2020: one list, ``eval_data_list.csv``: a line with the machine type, then lines ``id_01_00000000.wav,telling name,1``
  (1: an anomaly). The lists of later years are read too: their lines lack the last cell.
- 2021: ``ground_truth_data/ground_truth_fan_section_03_source_test.csv`` and ``..._target_test.csv``, 1 for an anomaly.
- From 2022 on one file for both domains, and ``ground_truth_domain/`` with 1 for a target clip.

``ground_truth_attributes/`` tells the names that clips go by where attributes are known: a file per section of two
cells, or of three where attributes were published later (2024), or ``fan/attributes_03.csv`` (2022).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ray_asd import store, tables
from ray_asd.errors import UserError
from ray_asd.scoring.csv_lines import flag, lines, refuse_duplicates, require_same, values

_FILE = re.compile(
    r"ground_truth_(?P<machine_type>.+)_section_(?P<section>.+?)(?:_(?P<domain>source|target))?_test\.csv"
)
_FILE_OF_ID = re.compile(r"ground_truth_(?P<machine_type>.+)_id_(?P<section>\d+)(?P<domain>)_test\.csv")
_LIST = re.compile(r"eval_data_list.*\.csv")
_CLIP = re.compile(r"(?:section|id)_(?P<section>\d{2})_.*")
_TELLING = re.compile(
    r"(?:section_\d{2}_(?P<domain>source|target)_(?:test_)?)?(?P<label>normal|anomaly)_(?:id_\d{2}_)?\d.*"
)
_DATA, _DOMAIN, _ATTRIBUTES = "ground_truth_data", "ground_truth_domain", "ground_truth_attributes"
_ALLOWED = "allowed: the folder of an official evaluator, with ground_truth_data or eval_data_list.csv, or such a list"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one section's test clips, by file name.

    ``known_as`` maps every accepted name to it; ``protocol`` is that of the year whose files have such names;
    ``target`` is empty where clips have no domains.
    """

    machine_type: str
    section: str
    protocol: str
    anomaly: dict[str, int] = field(default_factory=dict)
    target: dict[str, int] = field(default_factory=dict)
    known_as: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.machine_type} section {self.section}"

    def domain(self, file: str) -> str | None:
        """Of a clip."""
        return tables.DOMAINS[self.target[file]] if self.target else None


def read(uri: str) -> list[Truth]:
    """The ground truth in a folder of an evaluator or a list, by machine type and section.

    Raises:
        UserError: there is none, or its files do not fit each other.
    """
    data = store.join(uri, _DATA)
    names = [entry.path for entry in store.listing(data)]
    matches = [match for name in names if (match := _FILE.fullmatch(name) or _FILE_OF_ID.fullmatch(name))]
    if matches:
        return _of_folder(uri, matches)
    listed = _list_at(uri)
    if listed is None:
        raise UserError(f"no ground truth: no ground_truth_<machine>_section_<NN>_test.csv in {data}; {_ALLOWED}")
    return _of_list(listed)


def _list_at(uri: str) -> str | None:
    if store.exists(uri) and not store.is_folder(uri):
        return uri
    found = sorted(name for name in store.files(uri) if _LIST.fullmatch(name)) if store.is_folder(uri) else []
    if len(found) > 1:
        raise UserError(f"{uri} holds {len(found)} lists of evaluation clips, {', '.join(found)}; allowed: one of them")
    return store.join(uri, found[0]) if found else None


def _of_list(uri: str) -> list[Truth]:
    truths: dict[tuple[str, str], Truth] = {}
    machine_type, clips, telling = "", list[str](), Counter[tuple[str, str]]()
    for cells, line in lines(uri):
        cells = [cell for cell in cells if cell]
        if len(cells) == 1 and not cells[0].lower().endswith(".wav"):
            machine_type = cells[0]
            continue
        clip, told = _CLIP.fullmatch(cells[0]) if cells else None, _TELLING.fullmatch(cells[1]) if cells[1:] else None
        if not machine_type or clip is None or told is None:
            expected = "a machine type, or an anonymous name and one with its label"
            raise UserError(f"{uri} line {line}: {','.join(cells)!r}; allowed: {expected}")
        anomaly = tables.LABELS.index(told["label"])
        if cells[2:] and cells[2] != str(anomaly):
            raise UserError(f"{uri} line {line}: {cells[1]!r} is {told['label']}, but the last cell is {cells[2]!r}")
        key = (machine_type, clip["section"])
        truth = truths.setdefault(key, Truth(*key, _protocol(cells[0])))
        clips.append("/".join((machine_type, cells[0])))
        truth.anomaly[cells[0]] = anomaly
        if told["domain"]:
            truth.target[cells[0]] = tables.DOMAINS.index(told["domain"])
        name = cells[1].removesuffix(".wav") + ".wav"
        telling[machine_type, name] += 1
        truth.known_as[name] = cells[0]
    refuse_duplicates(clips, uri)
    if not truths:
        raise UserError(f"no ground truth: {uri} names no clip; {_ALLOWED}")
    for truth in truths.values():
        for name in [name for name in truth.known_as if telling[truth.machine_type, name] > 1]:
            del truth.known_as[name]
        _complete(truth, uri)
    return [truths[key] for key in sorted(truths)]


def _protocol(clip: str) -> str:
    """That of the year whose clips have such names."""
    if clip.startswith("id_"):
        return "dcase2020"
    return "dcase2021" if re.match(r"section_\d{2}_(?:source|target)_", clip) else "dcase2023"


def _of_folder(uri: str, matches: list[re.Match[str]]) -> list[Truth]:
    truths: dict[tuple[str, str], Truth] = {}
    has_domains = any(store.listing(store.join(uri, _DOMAIN)))
    for match in sorted(matches, key=lambda match: match[0]):
        key = (match["machine_type"], match["section"])
        protocol = "dcase2020" if match.re is _FILE_OF_ID else "dcase2021" if match["domain"] else "dcase2023"
        truth = truths.setdefault(key, Truth(*key, protocol))
        place = store.join(uri, _DATA, match[0])
        anomaly = values(place, flag)
        refuse_duplicates([*truth.anomaly, *anomaly], place)
        truth.anomaly.update(anomaly)
        if match["domain"]:
            truth.target.update(dict.fromkeys(anomaly, tables.DOMAINS.index(match["domain"])))
        elif has_domains:
            place = store.join(uri, _DOMAIN, match[0])
            truth.target.update(values(place, flag))
            require_same(truth.target, truth.anomaly, place)
    for truth in truths.values():
        _add_names(truth, uri)
        _complete(truth, uri)
    return [truths[key] for key in sorted(truths)]


def _add_names(truth: Truth, uri: str) -> None:
    """The names that clips go by with their attributes, and domains where these names alone tell them."""
    told: dict[str, list[str]] = defaultdict(list)
    for place, of_2022 in _attributes_of(truth, uri):
        named: list[str] = []
        for cells, line in lines(place):
            if of_2022 and line == 1:
                continue
            file, *names = map(store.name, cells)
            if of_2022:  # parameters and values stand before the telling name
                names = [name for name in names if _TELLING.fullmatch(name)]
            if not names:
                raise UserError(f"{place} line {line}: {len(cells)} values; a file name and names that tell are needed")
            named.append(file)
            told[file] += [name.removesuffix(".wav") + ".wav" for name in names]
        refuse_duplicates(named, place)
        require_same(named, truth.anomaly, place)
    times = Counter(name for names in told.values() for name in set(names))
    truth.known_as.update({name: file for file, names in told.items() for name in names if times[name] == 1})
    if not truth.target:
        for file, names in told.items():
            domains = {match["domain"] for name in names if (match := _TELLING.fullmatch(name)) and match["domain"]}
            if len(domains) == 1:
                truth.target[file] = tables.DOMAINS.index(domains.pop())


def _attributes_of(truth: Truth, uri: str) -> Iterator[tuple[str, bool]]:
    """Files with attributes of a section, and whether their first line is a header."""
    folder = store.join(uri, _ATTRIBUTES)
    plain = store.join(folder, f"ground_truth_{truth.machine_type}_section_{truth.section}_test.csv")
    if store.exists(plain):
        yield plain, False
    of_2022 = store.join(folder, truth.machine_type, f"attributes_{truth.section}.csv")
    if store.exists(of_2022):
        yield of_2022, True


def _complete(truth: Truth, uri: str) -> None:
    """Names that are always accepted; and domains are of all clips or of none."""
    truth.known_as.update({file: file for file in truth.anomaly})
    # The task's description calls the clips section_00_test_0000.wav, its ground truth section_00_0000.wav.
    start = f"section_{truth.section}_"
    told = {file.replace(start, f"{start}test_", 1): file for file in truth.anomaly if file.startswith(start)}
    truth.known_as.update({name: file for name, file in told.items() if name not in truth.anomaly})
    if truth.target and truth.target.keys() != truth.anomaly.keys():
        missing = min(truth.anomaly.keys() - truth.target.keys())
        raise UserError(f"{uri}: {truth.where}: the domain of some clips is told, of {missing!r} it is not")
