"""The DETECTOR: what its folder says of itself. Nothing else need be looked up to score with it."""

import json
from functools import cached_property

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_asd import store
from ray_asd.build import Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Inference, Resources, Scoring, Threshold, Usage
from ray_asd.errors import UserError
from ray_asd.models.card import CARD as MODEL_CARD
from ray_asd.models.card import read_card
from ray_asd.stages.training.usage import FEATURES, Method, Used

FORMAT_VERSION = 2  # of what the files mean
CARD = "detector.json"
VERSION, RELEASE = "version", "release"  # in the summary of a released one: its name, and what no other release has


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MemberCard(_Part):
    """One of a detector's models, and how it is used."""

    method: Method
    system: str
    seed: int | None
    digest: str  # of its weights; the name of features
    audio: Audio
    inference: Inference
    scoring: Scoring
    dim: int = 0  # values of an embedding; 0 where it gives scores of its own

    @property
    def has_bank(self) -> bool:
        """Whether its scores are distances to a bank."""
        return self.dim > 0


class GroupCard(_Part):
    """A machine type and section that the detector knows."""

    machine_type: str
    section: str
    ranges: list[tuple[int, int, int]]  # of each member's HEALTHY rows: start of the bank, of the others, end
    has_bank: list[bool]  # of each member
    why: str | None = None  # its clips cannot be scored
    standards: list[tuple[float, float]] | None = None  # of each member's healthy scores: centre, spread
    recall: float | None = None  # of an approximate index
    collapsed: bool = False  # its embeddings lie no further apart than float32 can tell


class DetectorCard(_Part):
    """What a detector is made of, and what it knows."""

    format_version: int = FORMAT_VERSION
    system: str  # the row's name in every table
    seed: int | None
    members: list[MemberCard]
    groups: list[GroupCard]
    threshold: Threshold
    sources: dict[str, str]  # digests of what it was made of, by name

    @cached_property
    def numbers(self) -> dict[tuple[str, str], int]:
        """Of each group, by machine type and section."""
        return {(group.machine_type, group.section): number for number, group in enumerate(self.groups)}

    def number(self, machine_type: str, section: str) -> int:
        """Of a group; -1 where it is not known."""
        return self.numbers.get((machine_type, section), -1)


def member_folder(number: int) -> str:
    """Of a member's files."""
    return f"members/{number}"


def read(detector: Output) -> DetectorCard:
    """The card of a detector.

    Raises:
        UserError: it was written in another format.
    """
    where = detector.file_uri(CARD)
    values = json.loads(detector.read(CARD))
    if values.get("format_version") != FORMAT_VERSION:
        found = values.get("format_version")
        raise UserError(f"{where}: detector format {found!r}; allowed: {FORMAT_VERSION}; enrol it anew")
    try:
        return DetectorCard.model_validate(values)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        raise UserError(f"{where}: {'.'.join(map(str, mistake['loc']))}: {mistake['msg']}") from error


def released(detector: Step | Output) -> dict[str, str]:
    """Which release it is, for what it scores to say so; nothing where it was not released."""
    summary = detector.marker.summary if isinstance(detector, Output) else {}
    return {name: summary[name] for name in (VERSION, RELEASE) if name in summary}


def version(detector: Step | Output) -> str | None:
    """What it is called in its registry; None where it was not released."""
    return released(detector).get(VERSION)


def members(detector: Output, card: DetectorCard, resources: Resources) -> list[Used]:
    """The detector's models as they are found in its own folder."""
    found = []
    for number, member in enumerate(card.members):
        usage = Usage(inference=member.inference, scoring=member.scoring, resources=resources)
        if member.method in FEATURES:
            found.append(Used(member.method, member.audio, usage, label=member.system))
            continue
        folder = member_folder(number)
        recipe = read_card(detector.fetch(store.join(folder, MODEL_CARD))).recipe
        found.append(Used(member.method, member.audio, usage, detector, folder, recipe, label=member.system))
    return found
