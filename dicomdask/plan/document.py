"""Plans as JSON that a person can read, edit and prune."""

import dataclasses
import json
import types
from collections.abc import Callable
from functools import cache
from typing import Any, cast, get_args, get_origin, get_type_hints

from dicomdask.errors import PlanError
from dicomdask.model import FORMAT
from dicomdask.plan.build import Plan


def plan_to_json(plan: Plan) -> str:
    """Return the text of a plan; `plan_from_json` reads it."""
    document = {"format": FORMAT, **dataclasses.asdict(plan)}
    return json.dumps(document, indent=1) + "\n"


def plan_from_json(text: str | bytes, *, name: str = "the plan") -> Plan:
    """Return the plan of a text.

    Raises
    ------
    PlanError
        If it is damaged or of another format.
    """
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise PlanError(
                f"{name} has another format than {FORMAT}; run `dicomdask plan` again"
            )
        plan: Plan = from_plain(Plan, document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(
            f"{name} is damaged ({type(error).__name__}); run `dicomdask plan` again"
        ) from None
    return plan


def from_plain(hint: Any, value: Any) -> Any:
    """Return a value of type `hint` from what JSON made of it.

    Knows frozen dataclasses, tuples, optional and plain values.

    Raises
    ------
    TypeError
        If the value is not of the type.
    """
    return _reader(hint)(value)


Read = Callable[[Any], Any]


@cache
def _reader(hint: Any) -> Read:
    """Return what reads values of a type: its hints are looked at once."""
    if dataclasses.is_dataclass(hint):
        return _record_reader(cast("type", hint))
    if get_origin(hint) is types.UnionType:
        read = _reader(next(arg for arg in get_args(hint) if arg is not type(None)))
        return lambda value: None if value is None else read(value)
    if get_origin(hint) is tuple:
        return _tuple_reader(get_args(hint)[0])
    if isinstance(hint, type):
        return _plain_reader(hint)
    return lambda value: value


def _record_reader(record: type) -> Read:
    readers = {name: _reader(part) for name, part in get_type_hints(record).items()}

    def read(value: Any) -> Any:
        if not readers.keys() >= set(value):
            raise TypeError("unknown field")
        return record(**{name: readers[name](part) for name, part in value.items()})

    return read


def _tuple_reader(hint: Any) -> Read:
    read_part = _reader(hint)

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise TypeError("not a list")
        return tuple(map(read_part, value))

    return read


def _plain_reader(hint: type) -> Read:
    accepted = (int, float) if hint is float else (hint,)

    def read(value: Any) -> Any:
        if not isinstance(value, accepted):
            raise TypeError("wrong type")
        return value

    return read
