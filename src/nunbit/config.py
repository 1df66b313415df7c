"""Dataclass ↔ plain values, with strict keys: a typo in a configuration is an error, never a silent default.

Place in the river: base. Every component is described by one frozen dataclass; files hold the same names.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nunbit.errors import ConfigError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Turn a dataclass, with what it holds, into dicts, lists and scalars that JSON and YAML can write."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """Build a dataclass from plain values.

    Args:
        cls: The dataclass.
        data: Its fields by name; those with a default may be left out.
        where: What the values describe, for messages: a file, or a dotted name inside of it.

    Returns:
        The dataclass, with nested ones built and lists turned into tuples where it says so.

    Raises:
        ConfigError: An unknown name (with the one that was probably meant), a missing one, or a wrong type.
    """
    place = where or cls.__name__
    if not isinstance(data, Mapping):
        raise ConfigError(f"{place}: expected names and values, got {type(data).__name__}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(known)}"
            raise ConfigError(f"{place}: there is no setting called {name!r}", hint=hint)
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in data]:
        raise ConfigError(f"{place}: missing {', '.join(missing)}")
    hints = get_type_hints(cls)
    return cls(**{name: _convert(value, hints[name], f"{place}.{name}") for name, value in data.items()})


def _convert(value: Any, hint: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, place)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place} is {value!r}", hint=f"one of: {', '.join(map(repr, arguments))}")
        return value
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        inner = [arguments[0]] * len(value) if origin is list or arguments[1:] == (...,) else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f"{place} has {len(value)} values, expected {len(inner)}")
        return origin(_convert(item, kind, place) for item, kind in zip(value, inner, strict=True))
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_plain(hint, value, where=place)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML takes 1e-3 for a text; it is a number with a dot only
        with suppress(ValueError):
            return float(value)
    if hint is Any or (isinstance(value, origin or hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{place} is {value!r}, expected {getattr(hint, '__name__', hint)}")


def _convert_union(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    """The first kind that fits; of several dataclasses the one whose ``kind`` is named."""
    if (
        isinstance(value, Mapping)
        and "kind" in value
        and any(isinstance(_kind(k), str) for k in kinds if is_dataclass(k))
    ):
        named = [k for k in kinds if is_dataclass(k) and value["kind"] == _kind(k)]
        if not named:
            known = ", ".join(repr(_kind(k)) for k in kinds if is_dataclass(k))
            raise ConfigError(f"{place}.kind is {value['kind']!r}", hint=f"one of: {known}")
        return _convert(value, named[0], place)
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        try:
            return _convert(value, kind, place)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _kind(cls: Any) -> Any:
    """Its default ``kind``; of a slotted class the attribute itself is a descriptor."""
    return next((field.default for field in fields(cls) if field.name == "kind"), None)


def read_config(
    cls: type[T],
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    given: Mapping[str, Any] | None = None,
) -> T:
    """Build a dataclass from a YAML file.

    Args:
        cls: The dataclass.
        path: The file; None for one that says nothing.
        overrides: ``a.b=value`` each: settings that replace those of the file, the value as YAML writes it.
        given: Values by dotted names, which replace those of the file and are replaced by ``overrides``.

    Raises:
        ConfigError: The file cannot be read as names and values, or a setting as in `from_plain`.
    """
    content = {} if path is None else read_yaml(path)
    for name, value in (given or {}).items():
        _put(content, name.split("."), value, name)
    override(content, overrides)
    return from_plain(cls, content, where="" if path is None else str(path))


def override(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set values within plain ones, in place.

    Args:
        content: Names and values, as a file has them.
        overrides: ``a.b=value`` each, the value as YAML writes it.

    Raises:
        ConfigError: One of them sets nothing, or sets something within what has no settings.
    """
    import yaml

    for line in overrides:
        name, equals, value = line.partition("=")
        if not equals or not name:
            raise ConfigError(f"{line!r} sets nothing", hint="write name=value, as in training.steps=500")
        _put(content, name.split("."), yaml.safe_load(value), name)


def read_yaml(path: Path) -> dict[str, Any]:
    """Names and values of a YAML file.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {path}") from error
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected names and values")
    return content


def _put(content: dict[str, Any], names: Sequence[str], value: Any, shown: str) -> None:
    for name in names[:-1]:
        inner = content.setdefault(name, {})
        if inner is None:
            inner = content[name] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{shown} cannot be set: {name} has no settings of its own")
        content = inner
    content[names[-1]] = value
