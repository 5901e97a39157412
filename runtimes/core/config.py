"""YAML from outside into typed models: overrides, unknown keys with a suggestion, one line per fault."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError
from .files import read_text
from .package_folders import package_folders
from .text import one_line, readable

Model = TypeVar("Model", bound=BaseModel)


MAX_NODES = 100_000


class Frozen(BaseModel):
    """Base of every model from outside: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, and `1e-8` is a number (YAML 1.2) and not a text."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen and key.value != "<<":
            raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' given twice", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


def _build_loader() -> None:
    import re

    StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
    number = re.compile(r"^[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")
    StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))


_build_loader()


def parse_yaml(text: str, name: str) -> Any:
    """YAML text as plain data; InputError with the line where it is broken."""
    try:
        return unshared(yaml.load(text, StrictLoader), [MAX_NODES])
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # The safe constructors let ValueError and TypeError through, for an invalid date or key.
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise InputError(f"{where}: not valid YAML: {one_line(getattr(error, 'problem', None) or error)}") from error


def unshared(data: Any, left: list[int]) -> Any:
    """A copy in which anchors and aliases are values of their own, so that an override changes one place.

    left: how many values it may hold; ValueError when aliases multiply beyond that.
    """
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {MAX_NODES} values")
    if isinstance(data, dict):
        return {key: unshared(value, left) for key, value in data.items()}
    if isinstance(data, list):
        return [unshared(value, left) for value in data]
    return data


def packaged_config(path: Path) -> Path:
    """The file, or where there is none the package's own of that name (`demo.yaml`, `configs/demo.yaml`)."""
    if not path.exists() and path.parent in (Path(), Path("configs")):
        for folder in package_folders("edgerecall.configs"):
            if path.suffix == ".yaml" and (folder / path.name).is_file():
                return folder / path.name
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; one of the package's own where the file is not there."""
    text = read_text(packaged_config(path), f"config {path}")
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise InputError(f"config {path}: expected sections (a mapping), got {type(data).__name__}")
    return data


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Applies `a.b.0.c=value` texts in place; the value is read as YAML. Numbers index lists."""
    for text in overrides:
        path, separator, value = text.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise InputError(f"-o {text}: expected a.b=value")
        target: Any = data
        for key in keys[:-1]:
            target = _step(target, key, text)
        parsed = parse_yaml(value, f"-o {path}")
        if isinstance(target, list):
            _step(target, keys[-1], text)
            target[int(keys[-1])] = parsed
        elif isinstance(target, dict):
            target[keys[-1]] = parsed
        else:
            raise InputError(f"-o {text}: '{keys[-2]}' is a value and has no '{keys[-1]}'")
    return data


def _step(target: Any, key: str, text: str) -> Any:
    if isinstance(target, list):
        if not key.isdigit() or int(key) >= len(target):
            raise InputError(f"-o {text}: expected a list index from 0 to {len(target) - 1}, got '{key}'")
        return target[int(key)]
    if not isinstance(target, dict):
        raise InputError(f"-o {text}: nothing below a value to set '{key}' in")
    if target.get(key) is None:
        target[key] = {}
    return target[key]


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the known names."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def require_known(name: str, known: Iterable[str], where: str) -> None:
    """InputError unless a name that was given at `where` is one of those known."""
    if name not in (names := tuple(known)):
        raise InputError(f"{where}: unknown '{name}'{suggestion(name, names)}")


def explain(error: ValidationError, model: type[BaseModel], name: str) -> str:
    """The first fault as one line of bounded length, and how many more there are."""
    return readable(_first_fault(error, model, name))


def _first_fault(error: ValidationError, model: type[BaseModel], name: str) -> str:
    faults = error.errors()
    # An unknown key explains a missing one better than the other way round.
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    location, fields = _resolve(model, fault["loc"])
    where = ".".join(str(part) for part in location)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"{name}: unknown key '{where}'{suggestion(str(location[-1]), fields)}{more}"
    if fault["type"] == "missing":
        return f"{name}: '{where}' is missing{more}"
    message = fault["msg"].removeprefix("Value error, ")
    got = "" if fault["type"] == "value_error" else f", got {fault['input']!r:.80}"
    return f"{name}: '{where}': {message}{got}{more}" if where else f"{name}: {message}{more}"


def _resolve(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[int | str], list[str]]:
    """The location without the tags that pydantic adds for unions, and the keys known where its last part stands."""
    path: list[int | str] = []
    candidates: list[Any] = [model]
    for part in location[:-1]:
        if isinstance(part, int):
            path.append(part)
        elif len(candidates) > 1:  # a tag, which names one of the union's models
            candidates = [c for c in candidates if part in _tags(c)][:1]
        else:
            path.append(part)
            fields = candidates[0].model_fields if candidates else {}
            field = next((one for name, one in fields.items() if part in (name, one.alias)), None)
            candidates = _models_in(field.annotation) if field is not None else []
    known = candidates[0].model_fields.items() if candidates else ()
    return [*path, location[-1]] if location else [], [field.alias or name for name, field in known]


def _tags(model: Any) -> list[Any]:
    """The name of a model and all its literal values: what pydantic may call it in a union."""
    literals = [v for f in model.model_fields.values() for v in getattr(f.annotation, "__args__", ())]
    return [model.__name__, *literals]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]


def validate(model: type[Model], data: Any, name: str) -> Model:
    """Plain data as a typed model; InputError with one line otherwise."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, model, name)) from error
