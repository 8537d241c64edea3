"""Plans as JSON that a person can read, edit and prune."""

import dataclasses
import json
import types
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
    if dataclasses.is_dataclass(hint):
        hints = _hints(cast("type", hint))
        if set(value) - set(hints):
            raise TypeError("unknown field")
        parts = {name: from_plain(hints[name], part) for name, part in value.items()}
        return hint(**parts)  # type: ignore[operator]
    if get_origin(hint) is types.UnionType:
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError("not a list")
        return tuple(from_plain(get_args(hint)[0], part) for part in value)
    if isinstance(hint, type) and not isinstance(value, _accepted(hint)):
        raise TypeError("wrong type")
    return value


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _accepted(hint: type) -> tuple[type, ...]:
    return (int, float) if hint is float else (hint,)
