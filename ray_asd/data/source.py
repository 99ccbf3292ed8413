"""Where recordings come from, as a user says it."""

from dataclasses import dataclass

from ray_asd import store
from ray_asd.errors import UserError


@dataclass(frozen=True)
class Source:
    """Where recordings come from and what is known of them beside their names."""

    uri: str
    layout: str = "auto"
    pattern: str | None = None  # of paths (``patterns``); the layout is then of that name
    machine_type: str | None = None  # of a flat folder, or where the pattern does not say it
    split: str | None = None  # where neither folder nor CSV nor pattern says it
    dataset: str | None = None  # first part of every clip_id; None: the source's own name
    truth: str | None = None  # labels of anonymous clips: the organisers' list, or their evaluator's folder
    attributes: str | None = None  # a folder with the attributes that names hide

    def __post_init__(self) -> None:
        """Raises UserError for what is not UTF-8, as names of files on disk may be: no table can hold it."""
        for what, given in vars(self).items():
            if given is not None and given != (said := given.encode(errors="backslashreplace").decode()):
                raise UserError(f"{what} {said!r} is not UTF-8; allowed: text that is, and a path of such names")

    @property
    def name(self) -> str:
        """The data set's name."""
        own = store.name(self.uri)
        return self.dataset or (own[:-4] if own.lower().endswith((".csv", ".zip")) else own)
