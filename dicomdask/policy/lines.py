"""Where in a policy file something stands, for those who have to mend it."""

import re

from dicomdask.errors import PolicyError


class Lines:
    """Finds the line of a key: at the top, or in the nth table of a name."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def error(
        self, what: str, key: str, number: int | None = None, *, table: str = "rule"
    ) -> PolicyError:
        """Return an error that names the line of a key, and what is wrong there."""
        line = self.find(key, number, table=table)
        return PolicyError(f"line {line} of the policy file: {what}")

    def find(self, key: str, number: int | None, *, table: str = "rule") -> int:
        """Return the line of a key, from 1; that of its table where it has none."""
        head = f"[[{table}]]"
        starts = [n for n, line in enumerate(self._lines) if line.strip() == head]
        start = 0 if number is None or number >= len(starts) else starts[number]
        for place in range(start, len(self._lines)):
            if re.match(rf"\s*(\[\[?\s*)?{re.escape(key)}\b", self._lines[place]):
                return place + 1
        return start + 1
