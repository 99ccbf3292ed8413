"""Where recordings come from, as a user says it."""

from dataclasses import dataclass

from ray_asd import store


@dataclass(frozen=True)
class Source:
    """Where recordings come from and what is known of them beside their names."""

    uri: str
    layout: str = "auto"
    machine_type: str | None = None  # of a flat folder
    split: str | None = None  # where neither folder nor CSV says it
    dataset: str | None = None  # first part of every clip_id; None: the source's own name
    truth: str | None = None  # labels of anonymous clips: the organisers' list, or their evaluator's folder
    attributes: str | None = None  # a folder with the attributes that names hide

    @property
    def name(self) -> str:
        """The data set's name."""
        own = store.name(self.uri)
        return self.dataset or (own[:-4] if own.lower().endswith((".csv", ".zip")) else own)
