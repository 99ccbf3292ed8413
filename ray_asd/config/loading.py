"""Recipes by name or path, and single settings changed: every mistake is one line."""

from importlib import resources as package
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ray_asd.config.section import Section
from ray_asd.config.sections import Audio, Recipe, Usage
from ray_asd.errors import UserError, decoded, unknown


def packaged(kind: str) -> list[str]:
    """Names of the files of a kind (recipe, grid) that come with the program."""
    folder = package.files("ray_asd") / f"{kind}s"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def text_of(kind: str, name: str) -> str:
    """The text of the packaged file of that name, or of the file at a path.

    Raises:
        UserError: there is no such file, or it is not UTF-8.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no {kind} file {name!r}")
        return decoded(f"{kind} {name}", path.read_bytes())
    if name not in packaged(kind):
        raise unknown(kind, name, [*packaged(kind), "a path ending in .yaml"])
    return (package.files("ray_asd") / f"{kind}s" / f"{name}.yaml").read_text("utf-8")


def packaged_recipes() -> list[str]:
    """Names that ``load`` finds without a path."""
    return packaged("recipe")


def load(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe of that packaged name or path, with ``key.sub=value`` overrides applied (values are YAML).

    Raises:
        UserError: no such recipe, not YAML, an unknown key, or a value or combination that cannot be.
    """
    text = text_of("recipe", name)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"recipe {name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"recipe {name}: a mapping of settings is needed, not {type(values).__name__}")
    return _parsed(Recipe, values, overrides, f"recipe {name}")


def usage(base: Usage, overrides: tuple[str, ...] = ()) -> Usage:
    """How to use a trained system: as ``base`` says (a recipe, say), with ``key.sub=value`` overrides applied.

    Raises:
        UserError: an override of anything else, which would need a new training, or a wrong value.
    """
    values = {name: base.model_dump(mode="json")[name] for name in Usage.model_fields}
    return _parsed(Usage, values, overrides, "settings")


def heard(base: Audio, overrides: tuple[str, ...]) -> Audio:
    """What is heard: as ``base`` says, with overrides of the form ``audio.key=value``.

    Raises:
        UserError: an unknown key or a wrong value.
    """
    values: dict[str, object] = {"audio": base.model_dump(mode="json")}
    for override in overrides:
        _override(values, override)
    return _parsed(Audio, values["audio"], (), "settings: audio")  # type: ignore[arg-type]


_Settings = TypeVar("_Settings", bound=Section)


def _parsed(kind: type[_Settings], values: dict[str, object], overrides: tuple[str, ...], name: str) -> _Settings:
    for override in overrides:
        _override(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{name}: {_first_mistake(kind, error)}") from error


def _override(values: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r} is not of the form key=value, e.g. training.steps=100")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.get(parent)
        if child is None:
            child = values[parent] = {}
        if not isinstance(child, dict):
            raise UserError(f"--set {override!r}: {parent!r} holds {child!r}, not settings")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: the value is not YAML") from error


def _first_mistake(kind: type[Section], error: ValidationError) -> str:
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    section, keys = _locate(kind, first["loc"])
    where = ".".join(keys)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; allowed: {', '.join(section.model_fields)}"
    if first["type"] == "missing" and len(keys) == len(first["loc"]):
        return f"{where}: this key is needed"
    alternatives = [m["msg"].removeprefix("Value error, ") for m in mistakes if _locate(kind, m["loc"])[1] == keys]
    message = " or ".join(alternatives)
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {first['input']!r}: {message}"


def _locate(section: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], list[str]]:
    """The innermost section that a mistake lies in, and its keys; what pydantic adds for unions is left out."""
    keys = []
    for part in location:
        keys.append(str(part))
        field = section.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
        if inner is None:
            break
        section = inner
    return section, keys
