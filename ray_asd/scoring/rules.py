"""By what rule machines alarm in a night: known before anything that decides by it is imported."""

from dataclasses import dataclass

from ray_asd.errors import UserError


@dataclass(frozen=True)
class Settings:
    """``rate``: share of false ones among alarms, on average; ``min_nights``: a machine's own before rule ``nights``.

    Raises:
        UserError: one of them makes no sense.
    """

    rate: float = 0.1
    min_nights: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"--rate {self.rate}: no share of false alarms; allowed: between 0 and 1")
        if self.min_nights < 2:
            raise UserError(f"--min-nights {self.min_nights}: too few to tell how nights differ; allowed: 2 or more")
