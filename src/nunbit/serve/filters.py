"""Conditions on pictures, as a request writes them: ``{"width": {"gte": 640}, "format": "JPEG"}``.

All conditions must hold. A field is ``id``, ``name``, ``width``, ``height``, ``size`` (bytes), ``format``, ``taken`` or
``modified`` (ISO 8601), or ``attributes.KEY``. A condition is a value to be equal to, or an object of operators: ``eq
ne lt lte gt gte in contains``. A picture without the attribute, or without a time, passes no condition on it but
``ne``. SQL is not taken: it would let whoever may search find out, letter by letter, where files lie.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from nunbit.serve.collection import NUMBERS, View
from nunbit.serve.problems import Problem

if TYPE_CHECKING:
    import numpy.typing as npt

    from nunbit.index import Item

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_OPERATORS = (*_COMPARE, "in", "contains")
_TEXTS: dict[str, Callable[[Item], Any]] = {
    "id": lambda item: item.id,
    "name": lambda item: item.name,
    "format": lambda item: item.metadata["format"],
    "taken": lambda item: item.metadata["taken"],
}
FIELDS = (*_TEXTS, "modified", "width", "height", "size", "attributes.KEY")


def select(view: View, conditions: Mapping[str, Any] | None) -> npt.NDArray[np.bool_] | None:
    """Which rows of a view pass: (N,) bool; None when there is no condition.

    Raises:
        Problem: 400, an unknown field or operator, or a value that cannot be compared.
    """
    if not conditions:
        return None
    mask = view.alive.copy()
    for name, condition in conditions.items():
        tests = condition if isinstance(condition, Mapping) else {"eq": condition}
        for operation, value in tests.items():
            if operation not in _OPERATORS:
                raise _bad(f"there is no operator {operation!r}", f"there are: {', '.join(_OPERATORS)}")
            mask &= _passing(view, mask, name, operation, value)
    return mask


def _passing(view: View, mask: npt.NDArray[np.bool_], name: str, operation: str, value: Any) -> npt.NDArray[np.bool_]:
    if name == "modified":
        moment = _moment(value)
        return _compared(view.numbers[NUMBERS.index("mtime_ns")], operation, int(moment.timestamp() * 1e9))
    if name in NUMBERS and name != "mtime_ns":
        return _compared(view.numbers[NUMBERS.index(name)], operation, value)
    if name == "taken" and isinstance(value, str):
        _moment(value)
    read = _reader(name)
    if operation == "in":
        value = _listed(value)
    passing = np.zeros(len(mask), bool)
    for row in np.flatnonzero(mask).tolist():
        passing[row] = _holds(read(view.items[row]), operation, value)
    return passing


def _reader(name: str) -> Callable[[Item], Any]:
    if name.startswith("attributes.") and len(name) > len("attributes."):
        key = name.removeprefix("attributes.")
        return lambda item: item.attributes.get(key)
    if name not in _TEXTS:
        raise _bad(f"there is no field {name!r} to filter by", f"there are: {', '.join(FIELDS)}")
    return _TEXTS[name]


def _compared(column: npt.NDArray[np.int64], operation: str, value: Any) -> npt.NDArray[np.bool_]:
    values = value if operation == "in" and isinstance(value, list) else [value]
    if operation == "contains" or not all(isinstance(v, (int, float)) and abs(v) < 1 << 62 for v in values):
        raise _bad(f"{value!r} with {operation!r} cannot be compared with a number", 'write it like {"gte": 640}')
    if operation == "in":
        return np.isin(column, np.array(values, np.float64))
    passing: npt.NDArray[np.bool_] = _COMPARE[operation](column, value)
    return passing


def _holds(found: Any, operation: str, value: Any) -> bool:
    if found is None:
        return operation == "ne"
    if operation == "in":
        return found in value
    if operation == "contains":
        return isinstance(found, str) and isinstance(value, str) and value.casefold() in found.casefold()
    try:
        return bool(_COMPARE[operation](found, value))
    except TypeError:
        return False


def _listed(value: Any) -> frozenset[Any]:
    if not isinstance(value, list):
        raise _bad(f"'in' takes a list, got {type(value).__name__}", 'write it like {"in": ["JPEG", "PNG"]}')
    return frozenset(one for one in value if isinstance(one, (str, int, float)))


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError):
        raise _bad(f"{value!r} is no time", "write it like 2026-05-01 or 2026-05-01T12:30:00") from None


def _bad(message: str, hint: str) -> Problem:
    return Problem(400, "bad_filter", message, hint, "filter")
