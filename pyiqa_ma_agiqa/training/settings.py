"""Settings as a YAML file gives them, checked against the dataclasses that hold them."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_args, get_type_hints

from ..errors import InputError

Settings = TypeVar("Settings")
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}


def settings_of(kind: type[Settings], values: Any, where: str = "") -> Settings:
    """A dataclass from values by name; a field that is a dataclass itself is a section of its own.

    Args:
        kind: its fields are int, float, str, bool, any of these or None, or dataclasses.
        values: what YAML made of the text.
        where: names of the sections around, each with a dot behind it.

    Raises:
        InputError: a setting that does not exist, is missing, or is of another type or out of range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where.rstrip('.') or 'the file'}: not settings with a name and a value each")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise InputError(f"{where}{name}: no such setting; there are {', '.join(fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise InputError(f"{where}{name}: missing")
    kinds = get_type_hints(kind)
    checked = {name: _checked(kinds[name], value, where + name) for name, value in values.items()}
    try:
        return kind(**checked)
    except InputError as error:
        raise InputError(f"{where}{error}") from None


def _checked(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return settings_of(kind, value, name + ".")  # type: ignore[arg-type]
    kinds = get_args(kind) or (kind,)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        # YAML takes 4e-4 for text.
        cure = "; write it with a point, as 4.0e-4" if float in kinds and isinstance(value, str) else ""
        raise InputError(f"{name}: {value!r} is not {' or '.join(WORDS[kind] for kind in kinds)}{cure}")
    return value


def check_range(settings: Any, **bounds: tuple[float, float]) -> None:
    """Check that numbers lie within bounds, both included; a number that may be None is then not checked.

    Raises:
        InputError: names the setting.
    """
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            limits = f"at least {low:g}" if high == float("inf") else f"within {low:g} to {high:g}"
            raise InputError(f"{name}: {value} is not {limits}")
