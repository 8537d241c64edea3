"""One device of the page: its rule, the places of its boxes, and its pictures."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

from dicomdask.model import Redaction
from dicomdask.report.devices import Device
from dicomdask.report.frames import Frame
from dicomdask.report.pictures import Picture, Place, Places
from dicomdask.report.review import Group
from dicomdask.report.rules import box_text, head, is_pinned, place_text, rule_text

HIGH: Final = 0.4
NO_NAMES: Final = "no maker, no model"
STATES: Final = {
    "blank": "blank always",
    "found": "blank where it is found",
    "not": "not blanked: no text",
}


def device_text(device: Device) -> str:
    """Return what people call a device: maker, model, modality and size."""
    names = " ".join(filter(None, (device.manufacturer, device.model)))
    if device.device_key:
        unnamed = f"device {device.device_key[:12]}"
        names = f"{names} ({unnamed})" if names else unnamed
    sizes = "various sizes"
    if device.rows and device.columns:
        sizes = f"{device.columns} x {device.rows}"
    return " · ".join(filter(None, (names or NO_NAMES, device.modality, sizes)))


def has_rule(group: Group) -> bool:
    """Tell whether a rule can be written: for a named device, and boxes of one size."""
    return group.device.is_named and group.device.rows is not None


def group_html(
    group: Group, frames: Mapping[Picture, Frame], *, pairs: bool
) -> Iterator[str]:
    """Yield the section of a device."""
    named = " named" if has_rule(group) else ""
    data = f' data-head="{escape(head(group.device))}"' if named else ""
    yield f'<section class="group{named}"{data}>'
    title = escape(device_text(group.device))
    yield f"<header><h2>{title}</h2>{_badge(group)}</header>"
    yield f'<p class="soft">{escape(counts_text(group))}</p>'
    yield from _rule_html(group)
    grid = "pictures pairs" if pairs else "pictures"
    for kind, chosen, total in (
        ("blanked", group.blanked, group.n_blanked),
        ("empty", group.empty, group.n_empty),
    ):
        shown = [one for one in chosen if one in frames]
        if total:
            yield f"<h3>{escape(_title(kind, len(shown), total))}</h3>"
        if shown:
            yield f'<div class="{grid}">'
            for picture in shown:
                yield from _figure(picture, frames[picture], kind, group)
            yield "</div>"
    yield "</section>"


def _badge(group: Group) -> str:
    kind = "badge high" if group.doubt >= HIGH else "badge"
    return f'<span class="{kind}">doubt {group.doubt:.2f}</span>'


def counts_text(group: Group) -> str:
    """Return how much of a device was looked at, and what was found by which way."""
    ways = ", ".join(f"{n:,} by {way}" for way, n in sorted(group.ways.items()))
    return (
        f"{_number(group.n_volumes, group.unit)}, {_number(group.n_frames, 'frame')}; "
        f"regions blanked: {ways or 'none'}"
    )


def _number(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _title(kind: str, n: int, total: int) -> str:
    what = "Blanked" if kind == "blanked" else "Looked at, nothing found"
    if n == total:
        return f"{what}: {_number(total, 'picture')}"
    return f"{what}: {n:,} of {_number(total, 'picture')}, the most doubtful first"


UNNAMED: Final = (
    "The policy does not keep maker and model of this device, so no rule can be "
    "written from what is stored alone. Run the report with --work: the page that it "
    "writes into the work directory has the names, and the rule."
)
SIZES: Final = (
    "This device has many sizes, each of few pictures, so boxes of one do not fit the "
    "others. Whatever the detector misses here: leave these files out, or blank them "
    "yourself before."
)


def _rule_html(group: Group) -> Iterator[str]:
    if not has_rule(group):
        told = UNNAMED if not group.device.is_named else SIZES
        yield f"<p>{escape(told)}</p>"
    if group.places.found:
        yield from _table(group)
    if has_rule(group):
        yield "<details><summary>Rule for a policy file</summary>"
        yield '<div class="bar needs-script" hidden>'
        yield '<button type="button" class="copy">Copy</button>'
        yield '<label><input type="checkbox" class="use"> put it into the policy file'
        yield "</label>"
        yield '<label><input type="checkbox" class="looked"> I have looked: blank only'
        yield " these boxes, and look no more</label></div>"
        yield f"<pre>{escape(rule_text(group.device, group.places))}</pre></details>"


def _table(group: Group) -> Iterator[str]:
    yield '<details class="rule"><summary>Places that are blanked: '
    yield f"{len(group.places.found)}</summary>"
    yield '<div class="scroll"><table><thead><tr><th>#</th>'
    yield "<th>top, left, bottom, right</th><th>found by</th><th>pictures</th>"
    yield '<th>lowest score</th><th class="needs-script" hidden>is to be</th></tr>'
    yield "</thead><tbody>"
    for number, place in enumerate(group.places.found):
        yield from _row(number, place, group)
    yield "</tbody></table></div></details>"


def _row(number: int, place: Place, group: Group) -> Iterator[str]:
    box, places = box_text(place.box), group.places
    score = "" if place.score is None else f"{place.score:.2f}"
    yield f'<tr data-place="{number}" data-box="{box}" data-way="{place.way}"'
    yield f' data-told="{escape(place_text(place, places))}">'
    yield f"<td>{number + 1}</td><td>{box}</td><td>{place.way}</td>"
    yield f"<td>{place.n_pictures:,} of {places.n_pictures:,}</td><td>{score}</td>"
    yield '<td class="needs-script" hidden>'
    if has_rule(group):
        yield from _select(number, place, places)
    yield "</td></tr>"


def _select(number: int, place: Place, places: Places) -> Iterator[str]:
    chosen = "blank" if is_pinned(place, places) else "found"
    yield f'<select aria-label="What place {number + 1} is to be">'
    for state, told in STATES.items():
        mark = " selected" if state == chosen else ""
        yield f'<option value="{state}"{mark}>{told}</option>'
    yield "</select>"


def _figure(picture: Picture, frame: Frame, kind: str, group: Group) -> Iterator[str]:
    yield f'<figure data-doubt="{picture.doubt}" data-kind="{kind}">'
    label = escape(f"Open: {picture.because}")
    yield f'<button type="button" class="open" aria-label="{label}">'
    for name, jpeg in frame.views:
        yield "<span>"
        yield from _svg(picture, jpeg, group)
        yield f"<em>{name}</em></span>" if len(frame.views) > 1 else "</span>"
    yield f"</button><figcaption>{_caption(picture, frame)}</figcaption></figure>"


def _caption(picture: Picture, frame: Frame) -> str:
    told = f" · {frame.told}"
    if picture.n_frames > 1:
        told += f", as {picture.n_frames - 1:,} more"
    because = f"doubt {picture.doubt:.2f}: {picture.because}"
    return f"<b>{escape(because)}</b>{escape(told)}"


def _svg(picture: Picture, jpeg: bytes, group: Group) -> Iterator[str]:
    rows, columns = picture.volume.rows, picture.volume.columns
    data = base64.b64encode(jpeg).decode("ascii")
    yield f'<svg viewBox="0 0 {columns} {rows}" role="img" aria-label="Frame">'
    yield f'<image width="{columns}" height="{rows}" preserveAspectRatio="none"'
    yield f' href="data:image/jpeg;base64,{data}"/>'
    yield from _rects(picture.redactions, group.places)
    yield "</svg>"


def _rects(redactions: Iterable[Redaction], places: Places) -> Iterator[str]:
    for one in redactions:
        box, score = one.box, "" if one.score is None else f", score {one.score:.2f}"
        yield (
            f'<rect class="{one.way}" data-place="{places.number(one)}" '
            f'x="{box.left}" y="{box.top}" width="{box.right - box.left}" '
            f'height="{box.bottom - box.top}">'
            f"<title>{one.way}{score}: {box_text(box)}</title></rect>"
        )


def sections(
    groups: Sequence[Group], frames: Mapping[Picture, Frame], *, pairs: bool
) -> Iterator[str]:
    """Yield the sections of all devices."""
    for group in groups:
        yield from group_html(group, frames, pairs=pairs)
