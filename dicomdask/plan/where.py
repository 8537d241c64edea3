"""The language of --where: comparisons of DICOM keywords, and nothing that acts.

pandas evaluates the expression, and would call methods and reach what Python reaches;
so only what is named here passes.
"""

import ast
import dataclasses
import difflib
from typing import Final

from dicomdask.errors import OptionError
from dicomdask.model import OWN_FIELDS, Instance, column_name

ALLOWED: Final = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.In, ast.NotIn),
    *(ast.BinOp, ast.BitAnd, ast.BitOr, ast.Add, ast.Sub, ast.Mult, ast.Div),
)
MAX_CHARACTERS: Final = 10_000

FIELDS: Final = tuple(field.name for field in dataclasses.fields(Instance))
KEYWORDS: Final = tuple(
    sorted(column_name(name) for name in FIELDS if name not in OWN_FIELDS)
)
"""What can be compared: the keywords that the index holds of each instance."""


def check_where(where: str) -> None:
    """Raise OptionError for an expression that is more than comparisons.

    Parameters
    ----------
    where
        As the user wrote it: `Modality == 'CT' and SliceThickness < 3`.
    """
    try:
        if len(where) > MAX_CHARACTERS:
            raise ValueError("long")
        tree = ast.parse(where.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise OptionError(
            f"--where cannot be evaluated ({type(error).__name__}); write an "
            "expression over DICOM keywords, such as \"Modality == 'CT'\""
        ) from None
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED) or _is_private(node):
            raise OptionError(
                "--where compares DICOM keywords with and, or, not, in and "
                f"arithmetic, and has no {type(node).__name__}; write it like "
                "\"Modality == 'CT' and SliceThickness < 3\""
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in {*KEYWORDS, *OWN_FIELDS}:
            raise OptionError(_unknown(node.id))


def _unknown(name: str) -> str:
    """Say what to do about a word that is no keyword: it may be a value, unquoted."""
    near = difflib.get_close_matches(name, KEYWORDS, n=1)
    advice = f"did you mean {near[0]}?" if near else "values stand in quotes."
    return (
        f"--where has a word that is no keyword which it can compare; {advice} It "
        f"compares {', '.join(KEYWORDS)}"
    )


def _is_private(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id.startswith("_")
