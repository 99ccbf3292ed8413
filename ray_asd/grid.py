"""Grids: which variations of one recipe a sweep runs, as data.

``load("paper", ...)`` finds a packaged grid by name, ``load("my.yaml", ...)`` a file. A grid is a YAML list of rows;
a value that is a list stands for each of its values, and the lists of a row are crossed:

    - method: [autoencoder, mobilenet]
    - {backbone: [hubert, wavlm], WS: [false, true], SA: true, TFP: false}
    - {backbone: hubert, set: {training.learning_rate: [1.0e-4, 5.0e-4]}}

``SA`` and ``TFP`` switch on what the recipe says of them; what a row leaves out is as in the recipe.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from ray_asd import config
from ray_asd.config import Family, Recipe, Section
from ray_asd.config.loading import packaged, text_of
from ray_asd.errors import UserError

_SWITCHES = {"SA": "augmentation", "TFP": "transformer_pooling"}
_Value = TypeVar("_Value")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_OneOrMore = Annotated[list[_Value], BeforeValidator(_listed), Field(min_length=1)]


class _Row(Section):
    method: _OneOrMore[Literal["backbone", "autoencoder", "mobilenet"]] | None = None
    backbone: _OneOrMore[Family] | None = None
    WS: _OneOrMore[bool] | None = None
    SA: _OneOrMore[bool] | None = None
    TFP: _OneOrMore[bool] | None = None
    set: dict[str, _OneOrMore[Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One system of a sweep, with one seed; ``variant`` tells it from others of the same parts."""

    recipe: Recipe
    variant: str

    @property
    def system(self) -> str:
        """The row's name in every table."""
        return self.recipe.system + self.variant

    @property
    def label(self) -> str:
        """Name and seed."""
        return f"{self.system} seed {self.recipe.seed}"


def packaged_grids() -> list[str]:
    """Names that ``load`` finds without a path."""
    return packaged("grid")


def load(name: str, recipe: str, overrides: tuple[str, ...] = (), seeds: Sequence[int] = ()) -> list[Cell]:
    """The cells of the grid of that packaged name or path on ``recipe`` with ``overrides``, in the order of its rows.

    Args:
        seeds: every cell once with each of them; none: the recipe's own seed.

    Raises:
        UserError: no such grid or recipe, a row that cannot be, or two cells that are the same.
    """
    given: Sequence[dict[str, Any]] = [{"seed": seed} for seed in seeds] or [{}]
    cells = [
        _cell(recipe, overrides, varied, seed) for row in _rows(name) for varied in _crossed(row) for seed in given
    ]
    twice = [label for label, count in Counter(cell.label for cell in cells).items() if count > 1]
    if twice:
        raise UserError(f"grid {name}: {twice[0]} stands there more than once")
    return cells


def _rows(name: str) -> list[_Row]:
    text = text_of("grid", name)
    try:
        rows = TypeAdapter(list[_Row]).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"grid {name}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"grid {name}: {_mistake(error)}") from error
    if not rows:
        raise UserError(f"grid {name} has no rows; allowed: at least one")
    return rows


def _mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f"a list of rows is needed, not {type(first['input']).__name__}"
    number, *keys = first["loc"]
    where = f"row {int(number) + 1}"
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {keys[0]!r}; allowed: {', '.join(_Row.model_fields)}"
    if not keys:
        return f"{where}: a mapping is needed, not {first['input']!r}"
    return f"{where}: {keys[0]}: {first['input']!r}: {first['msg']}"


def _crossed(row: _Row) -> Iterator[dict[str, Any]]:
    """Every combination of the row's values, by the name that the row gives them."""
    lists = {name: values for name, values in row if name != "set" and values is not None} | row.set
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _cell(recipe: str, overrides: tuple[str, ...], varied: dict[str, Any], seed: dict[str, Any]) -> Cell:
    settings = varied | seed
    variant = "".join(f" [{name}={value}]" for name, value in varied.items() if name not in _Row.model_fields)
    for key, name in (("backbone.family", "backbone"), ("backbone.weighted_sum", "WS")):
        if name in settings:
            settings[key] = settings.pop(name)
    for switch, section in _SWITCHES.items():
        on = settings.pop(switch, None)
        if on is False:
            settings[section] = None
        elif on and getattr(config.load(recipe, overrides), section) is None:
            raise UserError(f"{switch}: true needs a recipe with {section}; recipe {recipe} has none")
    ours = tuple(f"{name}={json.dumps(value)}" for name, value in settings.items())
    return Cell(config.load(recipe, (*overrides, *ours)), variant)
