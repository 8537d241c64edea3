"""The page: one HTML file that needs nothing else and sends nothing anywhere."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from dicomdask.policy import OPTION_CODES, POLICIES
from dicomdask.report.cards import sections
from dicomdask.report.frames import Frame
from dicomdask.report.pictures import Picture
from dicomdask.report.review import Review
from dicomdask.report.reviewed import About
from dicomdask.report.rules import LOOKED

N_GROUPS: Final = 500
"""How many devices a page tells of at most; the least doubtful ones are counted."""

WAYS: Final = {
    "detector": "found by the detector",
    "region": "outside of the ultrasound regions",
    "rule": "by a rule for the device",
    "own": "added by you",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """What a page says of itself.

    `is_identified`: it holds what the sources show or say.
    """

    about: About
    is_identified: bool
    has_before: bool


def page_html(heading: Heading, review: Review, frames: Mapping[Picture, Frame]) -> str:
    """Return the page."""
    style, script = _text("page.css"), _text("page.js")
    title = escape(f"Text blanked in {heading.about.name}")
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_rights()}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n',
            f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n",
            *_top(title, heading, review, len(frames)),
            "<main>\n",
            *_body(review, frames, pairs=heading.has_before),
            "</main>\n",
            *_policy(heading),
            VIEWER,
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


@cache
def _text(name: str) -> str:
    return files("dicomdask.report").joinpath(name).read_text(encoding="utf-8")


def _rights() -> str:
    """Return what the page may do: show its own pictures, and run its own script."""
    style, script = (_digest(_text(name)) for name in ("page.css", "page.js"))
    return (
        f"default-src 'none'; img-src data:; style-src '{style}'; "
        f"script-src '{script}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


IDENTIFIED: Final = (
    "IDENTIFIED: this page holds what the sources show or say. It belongs into the "
    "private work directory only; delete it when the review is done."
)
NOT_REVIEWED: Final = (
    "A text that was missed can be read on this page. Until what it shows is released, "
    "keep the page as private as that."
)


def _top(title: str, heading: Heading, review: Review, n_shown: int) -> Iterator[str]:
    yield f"<header>\n<h1>{title}</h1>\n"
    told = f"{heading.about.state}, policy {heading.about.policy}"
    yield f'<p class="soft">{escape(told)}</p>\n'
    if heading.is_identified:
        yield f'<p class="warning">{escape(IDENTIFIED)}</p>\n'
    else:
        yield f'<p class="soft">{escape(NOT_REVIEWED)}</p>\n'
    yield '<ul class="counts">\n'
    for number, what in counts(heading, review, n_shown):
        yield f"<li><b>{number:,}</b>{escape(what)}</li>\n"
    yield "</ul>\n"
    yield HOW.replace("AGAIN", AGAIN[heading.about.unit])
    yield '<ul class="key">\n'
    for way, told in WAYS.items():
        yield f'<li><i class="{way}"></i>{escape(told)}</li>\n'
    yield "</ul>\n</header>\n"
    yield FILTERS


def counts(heading: Heading, review: Review, n_shown: int) -> list[tuple[int, str]]:
    """Return what a page counts: volumes, regions by way, what was not looked at."""
    groups, ways = review.groups, Counter[str]()
    for one in groups:
        ways.update(one.ways)
    looks, about = review.looks, heading.about
    return [
        (sum(one.n_volumes for one in groups), f"{about.unit}s looked at"),
        (sum(one.n_blanked for one in groups), "pictures with blanked text"),
        (sum(one.n_empty for one in groups), "pictures with nothing found"),
        *((n, f"regions {WAYS[way]}") for way, n in sorted(ways.items())),
        (len(groups), "devices and sizes"),
        (n_shown, "pictures on this page"),
        *((n, told) for look, told in NO_LOOK if (n := looks.get(look, 0))),
        *([(about.n_passed, PASSED)] if about.n_passed else []),
        *((n, f"inputs rejected: {code}") for code, n in about.rejected.items()),
    ]


NO_LOOK: Final = (
    ("not-needed", "volumes that need no look"),
    ("trusted", "volumes trusted by --trust-pixels"),
    ("none", "volumes under no policy that looks"),
)

PASSED: Final = "files that passed without a look"

AGAIN: Final = {
    "volume": "convert again with it: into another store, or with "
    "<code>--overwrite</code>",
    "file": "deidentify again with it, into another destination",
}
"""What is done with a policy file then."""

HOW: Final = """\
<details><summary>How to review</summary>
<ol>
<li>Go through the devices, the most doubtful first. Doubt grows where the detector
was not sure, where a box is large or lies within an ultrasound region, and where
nothing was found though most pictures of the same device have text.</li>
<li>Open a picture. Is there text outside of the boxes? Drag a box over it. Is a box of
the detector over something that is no text? Click it: its line is dotted then.
Brightness shows what is dark, and where the window of an image hides much, there is a
view from its darkest to its brightest pixel; the arrow keys go on.</li>
<li>The rule of the device changes with it. Without a script, change it by hand: what is
no text goes from <code>blank</code> to <code>keep</code>, and what was missed into
<code>blank</code>, as top, left, bottom, right.</li>
<li>Put the rules into a policy file, and AGAIN. What a rule blanks is blanked always,
and the detector looks at the rest; with <code>looked = true</code> only the boxes of
the rule are blanked, and nothing looks any more.</li>
</ol>
</details>
"""

FILTERS: Final = """\
<form class="filters needs-script" hidden>
<label>Device <input type="search" id="word"></label>
<label>Doubt of at least
<select id="least"><option>0</option><option>0.2</option><option>0.4</option>
<option>0.6</option></select></label>
<label><input type="checkbox" id="blanked" checked> blanked</label>
<label><input type="checkbox" id="empty" checked> nothing found</label>
<span class="soft" id="n-shown"></span>
</form>
"""

VIEWER: Final = """\
<dialog id="viewer" aria-label="Picture">
<div class="bar">
<button type="button" class="previous">Previous</button>
<button type="button" class="next">Next</button>
<label>Brightness
<input type="range" id="bright" min="0.5" max="6" step="0.1" value="1"></label>
<span class="soft edit">drag: a text was missed · click a box: it is no text</span>
<span class="soft cursor"></span>
<button type="button" class="close">Close</button>
</div>
<div class="stage"></div>
<p class="soft told"></p>
</dialog>
"""


def _body(
    review: Review, frames: Mapping[Picture, Frame], *, pairs: bool
) -> Iterator[str]:
    if not review.groups:
        yield "<p>Nothing was looked at here.</p>\n"
    yield from sections(review.groups[:N_GROUPS], frames, pairs=pairs)
    left = review.groups[N_GROUPS:]
    if left:
        n = sum(one.n_volumes for one in left)
        yield f'<p class="soft">{len(left):,} more devices and sizes, of less doubt, '
        yield f"with {n:,} {left[0].unit}s, are not listed.</p>\n"


def _policy(heading: Heading) -> Iterator[str]:
    """Yield where the rules that were put into the policy file are collected."""
    yield f'<section id="policy" class="quiet" data-looked="{escape(LOOKED)}"'
    start = policy_start(heading.about.policy, heading.about.codes)
    yield f' data-start="{escape(start)}">'
    yield '<h2>Policy file, rules in it: <span class="n-used">0</span></h2>'
    yield '<div class="bar"><button type="button" class="copy">Copy</button></div>'
    yield "<pre></pre></section>\n"


def policy_start(policy: str, codes: Collection[str]) -> str:
    """Return how a policy file begins that extends the policy of what is shown.

    Parameters
    ----------
    policy
        Its name.
    codes
        Those of the options that are in force.
    """
    if policy not in POLICIES:
        return f"# append to the policy file of {policy}\n"
    options = [name for name, (code, _) in OPTION_CODES.items() if code in codes]
    told = json.dumps(sorted({*options} - {*POLICIES[policy]}))
    return f'extends = "{policy}"\nname = "reviewed"\noptions = {told}\n'
