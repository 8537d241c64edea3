"""The look at an image beside others of its series: as safe as a look of its own."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask import burnedin
from dicomdask.burnedin.changes import changed
from dicomdask.errors import InputError
from dicomdask.model import Box
from tests.test_look import BRIGHT, SHAPE, Finder, left, speckle, still, write

PLACES = st.tuples(st.integers(0, 140), st.integers(0, 190))


def look(plane, seen=(), find=None, **ground):
    """Return what is blanked in a plane, what was seen, and the detector."""
    finder = find or Finder()
    told, mine = burnedin.look_beside(
        lambda _: [plane], burnedin.Ground(**ground), finder, seen
    )
    return told, mine, finder


def references(planes):
    """Return what is seen in some planes, each looked at by itself."""
    return [look(plane)[1] for plane in planes]


def area(found, n: int) -> int:
    """Return how many pixels some regions hold in a frame."""
    mask = np.ones((n, *SHAPE), np.uint8)
    return int((left(mask, found) == 0).sum())


def test_alone_it_is_the_look_at_one_frame() -> None:
    plane = speckle(1)[0]
    write(plane, "DOE JANE", (40, 30))
    ground = burnedin.Ground(((Box(0, 0, 9, 240), "rule"),), (Box(90, 0, 160, 240),))
    args = (lambda _: [plane], ground)
    wanted = burnedin.look([0], *args, Finder())
    assert burnedin.look_beside(*args, Finder())[0] == wanted
    assert len(wanted) == 2


def test_what_another_shows_as_well_costs_no_look() -> None:
    plane = still(1)[0]
    write(plane, "DOE JANE", (40, 30))
    found, seen, _ = look(plane)
    again, nothing, finder = look(plane.copy(), [seen])
    assert (again, nothing, finder.shapes) == (found, None, [])
    assert len(found) == 1


def test_what_is_new_is_looked_at_where_it_is() -> None:
    one, other = still(2)
    write(one, "DOE JANE", (40, 30))
    write(other, "DOE JANE", (40, 30))
    write(other, "MRN 42", (120, 150))
    found, seen, finder = look(other, references([one]))
    assert left(other[None], found).max() < BRIGHT
    [shape] = finder.shapes
    assert shape[0] * shape[1] < SHAPE[0] * SHAPE[1] / 2
    assert len(seen.found) == len(found) == 2


def test_two_new_places_far_apart_are_looked_at_by_themselves() -> None:
    tall = np.full((900, 240), 20, np.uint8)
    new = tall.copy()
    write(new, "AB 12", (10, 10))
    write(new, "CD 34", (860, 150))
    parts = changed([new], [[tall]])
    assert len(parts) == 2
    assert sum(part.area for part in parts) < tall.size / 4
    found, _, finder = look(new, references([tall]))
    assert len(finder.shapes) == 2
    assert left(new[None], found).max() < BRIGHT


def test_where_it_shows_something_else_it_is_not_blanked() -> None:
    one, other = still(2)
    write(one, "DOE JANE", (40, 30))
    other[30:70, 20:120:2] = 150
    found, _, _ = look(other, references([one]))
    assert found == ()


def test_a_place_that_is_plain_is_not_blanked_for_what_another_shows() -> None:
    one, other, third = still(3)
    write(one, "DOE JANE", (40, 30))
    assert look(other, references([one]))[0] == ()
    for plane in (other, third):
        plane[20:80:8] = 120
    assert look(other, references([one, third]))[0] == ()
    [kept] = look(one, references([third, one]))[0]
    assert kept.box.top < 44


def test_what_only_one_of_two_looks_found_is_blanked_in_what_is_like_both() -> None:
    plane = still(1)[0]
    write(plane, "DOE JANE", (40, 30))
    missed = burnedin.Seen((plane,), ())
    [found] = look(plane, [missed, *references([plane])])[0]
    assert left(plane[None], [found]).max() < BRIGHT


@pytest.mark.parametrize("level", [14, 20, 28])
def test_what_is_left_of_another_text_is_blanked(level: int) -> None:
    one, other = still(2)
    write(one, "DOE JANE", (40, 30))
    write(other, "DOE", (40, 30), fill=20 + level)
    found, _, _ = look(other, references([one]))
    assert left(other[None], found).max() <= 20


def test_what_was_kept_for_another_device_is_no_reference() -> None:
    plane = still(1)[0]
    write(plane, "DOE JANE", (40, 30))
    _, seen, _ = look(plane, keep=(Box(0, 0, *SHAPE),))
    assert seen.found == ()
    found, _, finder = look(plane, [seen])
    assert len(found) == len(finder.shapes) == 1


def test_another_size_is_no_reference() -> None:
    _, seen, _ = look(np.full((80, 240), 20, np.uint8))
    plane = still(1)[0]
    write(plane, "DOE", (20, 30))
    found, _, finder = look(plane, [seen])
    assert (len(found), finder.shapes) == (1, [SHAPE])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    fixed=st.lists(PLACES, max_size=3),
    added=st.lists(st.tuples(st.integers(0, 7), PLACES), max_size=6),
    is_moving=st.booleans(),
    n_references=st.integers(1, 3),
)
def test_no_text_is_missed_that_a_look_of_its_own_finds(
    seed, fixed, added, is_moving, n_references
):
    """Static text, tissue that moves or not, text that comes or moves in some files."""
    planes = speckle(8, seed) if is_moving else still(8)
    for plane in planes:
        for place in fixed:
            write(plane, "DOE 1970", place)
    for number, place in added:
        write(planes[number], "AB 12", place)
    seen = references(planes[:n_references])
    for plane in planes[n_references:]:
        found, _, _ = look(plane, seen)
        alone, _, _ = look(plane)
        assert left(plane[None], alone).max() < BRIGHT
        assert left(plane[None], found).max() < BRIGHT
        assert look(plane, seen)[0] == found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    added=st.lists(st.tuples(st.integers(0, 7), PLACES), max_size=6),
    is_moving=st.booleans(),
)
def test_nor_where_each_is_compared_with_those_before(seed, added, is_moving):
    planes = speckle(8, seed) if is_moving else still(8)
    for number, place in added:
        write(planes[number], "AB 12", place)
    seen: list[burnedin.Seen] = []
    for plane in planes:
        found, mine, _ = look(plane, seen[-4:])
        assert left(plane[None], found).max() < BRIGHT
        assert area(found, 1) <= 2 * sum(area(look(one)[0], 1) for one in planes)
        seen += [mine] if mine else []


# --- text that is faint ------------------------------------------------------------


@pytest.mark.parametrize("step", [3, 5, 7, 10])
def test_text_that_rises_slowly_is_looked_at(step: int) -> None:
    """It rises by little a frame, is never strong, and gone in each sampled frame."""
    levels = [*range(0, 31, step), *range(30, 0, -step)]
    levels += [0] * 2 * len(levels)
    frames = still(len(levels))
    for plane, level in zip(frames, levels, strict=True):
        write(plane, "DOE JANE", (70, 90), fill=20 + level)

    def find(picture, _):
        is_seen = np.ptp(picture) >= 20
        return [(Box(0, 0, *picture.shape), 0.9)] if is_seen else []

    found = burnedin.look(
        range(len(frames)), lambda n: [frames[n]], burnedin.Ground(), find
    )
    blanked = {n for one in found for n in one.frames}
    assert blanked >= {n for n, level in enumerate(levels) if level >= 20} != set()


@pytest.mark.parametrize("level", [16, 20, 28])
@pytest.mark.parametrize("noise", [0, 2])
def test_faint_text_on_flat_ground_is_new(level: int, noise: int) -> None:
    rng = np.random.default_rng(1)
    before, after = (
        (40 + rng.normal(0, noise, SHAPE)).round().astype(np.uint8) for _ in range(2)
    )
    assert changed([after], [[before]]) == ()
    write(after, "DOE JANE", (70, 90), fill=40 + level)
    [part] = changed([after], [[before]])
    assert part.top <= 70
    assert part.left <= 90
    assert part.bottom >= 84


def test_noise_alone_is_nothing_new() -> None:
    rng = np.random.default_rng(2)
    for sigma in (1, 3, 6, 9):
        planes = np.clip(rng.normal(100, sigma, (2, *SHAPE)), 0, 255).astype(np.uint8)
        assert changed([planes[1]], [[planes[0]]]) == ()


# --- time ----------------------------------------------------------------------------


def test_a_slow_frame_leaves_the_detector_what_time_is_left(monkeypatch) -> None:
    module = sys.modules["dicomdask.burnedin.look"]
    now = iter(range(0, 10_000, 25))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    given_s: list[float] = []

    def find(_, seconds):
        given_s.append(seconds)
        return []

    pictures = [still(1)[0], still(1)[0] + 9, still(1)[0] + 90]
    with pytest.raises(InputError, match="took too long"):
        burnedin.look(range(3), lambda _: pictures[:2] * 2, burnedin.Ground(), find)
    assert given_s
    assert all(0 < seconds <= module.SECONDS for seconds in given_s)
    assert given_s == sorted(given_s, reverse=True)
    assert given_s[-1] < module.SECONDS
