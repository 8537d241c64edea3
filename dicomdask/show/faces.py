"""What people read of faces. Pure."""

from collections.abc import Mapping


def faces_lines(statistics: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return one line on faces; none where no volume shows, or showed, any."""
    possible, cleaned = (
        sum(found.get(f"faces_{told}", 0) for found in statistics.values())
        for told in ("possible", "cleaned")
    )
    if not possible and not cleaned:
        return []
    return [f"faces: {possible} volumes may show one, {cleaned} had theirs removed"]
