"""Configurations: frozen dataclasses read from YAML, changed by `key=value`, checked against their types."""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from uce.errors import UceError, UsageError
from uce.files import nearest, printable

Config = TypeVar("Config")


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, but a key written twice is an error: YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _ProblemError(f"key {key!r} on line {key_node.start_mark.line + 1} is not text")
            if key in seen:
                raise _ProblemError(f"{printable(key)} is set twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _ProblemError(Exception):
    """What is wrong, without the file: the caller knows where the text came from."""


def read_config(kind: type[Config], source: str | Path, *, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file into a frozen dataclass.

    Parameters
    ----------
    kind
        The dataclass; nested dataclasses are nested keys. Where a field may be one of several dataclasses, its key
        `name` chooses: each of them has a field `name` with a literal of its own.
    source
        A YAML file. Values are plain (text, numbers, booleans, lists); no tags are resolved, no code is run.
    overrides
        Texts such as `optimizer.lr=3e-4`, applied after the file, in order.

    Returns
    -------
    config
        An instance of `kind`; fields left out have their defaults.

    Raises
    ------
    UsageError
        The file is missing or is no YAML mapping, or a key is unknown, doubled, missing or of another type.
    """
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        msg = f"{path}: no such file. Name a YAML configuration, such as configs/uce_mini.yaml."
        raise UsageError(msg) from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        msg = f"{path}: not a text file. Name a YAML configuration, such as configs/uce_mini.yaml."
        raise UsageError(msg) from error
    values = _parse(text, str(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        msg = f"{path}: {type(values).__name__} found; a configuration is a mapping of keys to values."
        raise UsageError(msg)
    for override in overrides:
        _override(values, override)
    return build_config(kind, values, where=str(path))


def build_config(kind: type[Config], values: Mapping[str, Any], *, where: str = "configuration") -> Config:
    """Make a dataclass of plain values, refusing unknown keys and values of another type.

    Raises
    ------
    UsageError
        Naming `where`, the key, the value found and the nearest known key.
    """
    try:
        return _build(kind, values, prefix="")  # type: ignore[no-any-return]
    except (_ProblemError, UceError) as problem:
        msg = f"{where}: {problem}"
        raise UsageError(msg) from problem


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a dataclass, tuples as lists; `build_config` makes an equal dataclass of them."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def with_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """A configuration with some settings changed by texts such as `optimizer.lr=3e-4`, applied in order.

    Raises
    ------
    UsageError
        As of `read_config`.
    """
    values = config_to_dict(config)
    for override in overrides:
        _override(values, override)
    return build_config(type(config), values, where="settings")


def write_config(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML with every field, in the order of its fields."""
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True, width=120)
    Path(path).write_text(text, encoding="utf-8")


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  a subclass of SafeLoader
    except _ProblemError as problem:
        msg = f"{where}: {problem}."
        raise UsageError(msg) from problem
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" on line {mark.line + 1}" if mark else ""
        msg = f"{where}: not readable as YAML{place} ({getattr(error, 'problem', None) or type(error).__name__})."
        raise UsageError(msg) from error


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        msg = f"{printable(text)}: not an override; write key=value, such as optimizer.lr=3e-4."
        raise UsageError(msg)
    place = values
    for part in parts[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            msg = f"{printable(text)}: {printable(part)} holds one value and has no keys below it."
            raise UsageError(msg)
        place = inner
    place[parts[-1]] = _parse(value, f"override {printable(text)}")


def _build(kind: Any, values: Mapping[str, Any], *, prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise _ProblemError(f"unknown key {printable(prefix + key)}.{nearest(key, list(fields))}")
    hints = get_type_hints(kind)
    missing = [name for name, field in fields.items() if name not in values and _has_no_default(field)]
    if missing:
        raise _ProblemError(f"{prefix}{missing[0]} is missing; add it.")
    return kind(**{key: _convert(hints[key], value, prefix + key) for key, value in values.items()})


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`, or a problem; whole numbers pass as fractions, nothing else changes its type."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _ProblemError(f"{key}: {printable(repr(value))} found; keys below it are needed, such as {key}.name.")
        return _build(hint, value, prefix=f"{key}.")
    origin, choices = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _choice(choices, value, key)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        kinds = [choice for choice in choices if choice is not type(None)]
        return _convert(kinds[0] if len(kinds) == 1 else _named(kinds, value, key), value, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _ProblemError(f"{key}: {printable(repr(value))} found; a list is needed, such as [a, b].")
        return tuple(_convert(choices[0], item, key) for item in value)
    return _scalar(hint, value, key)


def _named(kinds: list[Any], value: Any, key: str) -> Any:
    """The one of several dataclasses whose `name`, a literal, is that of `value`; the first where it has none."""
    if not isinstance(value, dict) or "name" not in value:
        return kinds[0]
    names = [name for kind in kinds for name in get_args(get_type_hints(kind)["name"])]
    return kinds[names.index(_choice(tuple(names), value["name"], f"{key}.name"))]


def _choice(choices: tuple[Any, ...], value: Any, key: str) -> Any:
    if value in choices and not isinstance(value, bool):
        return value
    shown = ", ".join(str(choice) for choice in choices)
    hint = nearest(str(value), [str(choice) for choice in choices])
    raise _ProblemError(f"{key}: {printable(repr(value))} found; one of {shown} is needed.{hint}")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    advice = ""
    if isinstance(value, str) and hint in (int, float):
        # YAML 1.1 reads 1e-4 as text because it has no dot; Python reads it as a number.
        try:
            return hint(value) if hint is float else _whole(value)
        except ValueError:
            advice = " Write it without quotes or units."
    raise _ProblemError(f"{key}: {printable(repr(value))} found; {_WORDS[hint]} is needed.{advice}")


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
