"""The detector: where text is drawn, boxes are; what fails or is late, is rejected."""

import subprocess
import sys
import threading
import traceback
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from dicomdask.burnedin import detector, network
from dicomdask.errors import InputError, OptionError
from dicomdask.model import Box
from tests.benchmarks.bench_text import masked

SMALL_SLICES = "icometrix__dicom2nifti/tests/data/generic/rgb/001"


def drawn(text: str, *, at: tuple[int, int], size: int, shape=(256, 320)) -> np.ndarray:
    """Return a dark plane with a line of text, its upper left at (row, column)."""
    plane = Image.new("L", (shape[1], shape[0]), 20)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(plane).text((at[1], at[0]), text, fill=230, font=font)
    return np.asarray(plane)


def covered(image: np.ndarray, boxes: list[Box]) -> float:
    """Return the share of what was drawn that lies in boxes."""
    marked = image.reshape(*image.shape[:2], -1).max(axis=-1) > 128
    inside = np.zeros(marked.shape, bool)
    for box in boxes:
        inside[box.top : box.bottom, box.left : box.right] = True
    return float((marked & inside).sum() / marked.sum())


@pytest.mark.parametrize("size", [12, 20, 36])
@pytest.mark.parametrize("colour", [False, True])
def test_a_line_is_found_and_little_else(size, colour):
    image = drawn("DOE JANE 1970-01-02", at=(100, 20), size=size, shape=(256, 480))
    shown = np.stack([image, image // 2, image // 3], axis=-1) if colour else image
    found = detector.find_text(shown)
    boxes = [box for box, _ in found]
    assert covered(image, boxes) > 0.98
    assert all(box.top > 80 and box.bottom < 100 + 2 * size for box in boxes)
    assert all(0 < score <= 1 for _, score in found)


def test_a_moved_line_is_found_where_it_moved():
    one, other = (
        detector.find_text(drawn("MRN 0042", at=at, size=20))
        for at in ((40, 40), (104, 72))
    )
    moved = [
        Box(box.top + 64, box.left + 32, box.bottom + 64, box.right + 32)
        for box, _ in one
    ]
    assert len(other) == len(moved) == 1
    for field in ("top", "left", "bottom", "right"):
        assert abs(getattr(moved[0], field) - getattr(other[0][0], field)) <= 3


def test_the_same_image_gives_the_same_boxes_in_any_thread():
    image = drawn("DOE JANE", at=(100, 20), size=20)
    found = [detector.find_text(image)]
    threads = [
        threading.Thread(target=lambda: found.append(detector.find_text(image)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 3


@pytest.mark.parametrize("left", [580, 620, 660])
def test_a_line_is_found_across_the_tiles_of_a_large_image(left):
    image = drawn("DOE JANE 0042", at=(700, left), size=12, shape=(1400, 1400))
    boxes = [box for box, _ in detector.find_text(image)]
    assert covered(image, boxes) > 0.98
    assert all(box.bottom - box.top < 60 for box in boxes)


@pytest.mark.parametrize("length", [1, 64, 65, 767, 768, 769, 1472, 1473, 3001])
def test_tiles_overlap_and_leave_nothing_out(length):
    tiles = network._cuts(length)
    assert tiles[0].start == 0
    assert tiles[-1].stop == length
    assert all(0 < tile.stop - tile.start <= 768 for tile in tiles)
    for tile, following in pairwise(tiles):
        assert tile.stop - following.start == 64


def test_what_is_faint_is_found():
    noise = np.random.default_rng(0).normal(100, 1.5, (256, 320))
    slope = np.linspace(-60, 60, 320)
    ink = drawn("DOE JANE 0042", at=(100, 20), size=20) > 128
    shown = np.clip(noise + slope + 7 * ink, 0, 255).astype(np.uint8)
    boxes = [box for box, _ in detector.find_text(shown)]
    assert covered(np.where(ink, 255, 0), boxes) > 0.9


def test_a_body_is_no_letter():
    rows, columns = np.mgrid[:512, :512]
    body = ((rows - 256) / 150) ** 2 + ((columns - 256) / 200) ** 2
    image = np.where(body < 1, 180, 10).astype(np.uint8)
    image[((rows - 256) / 40) ** 2 + ((columns - 256) / 40) ** 2 < 1] = 250
    boxes = [box for box, _ in detector.find_text(image)]
    assert sum((b.bottom - b.top) * (b.right - b.left) for b in boxes) < 0.01 * 512**2


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_line_is_found(turns):
    image = np.rot90(drawn("DOE JANE 1970-01-02", at=(100, 20), size=20), turns)
    boxes = [box for box, _ in detector.find_text(image)]
    assert covered(image, boxes) > 0.98
    assert masked(boxes, image).mean() < 0.15


@pytest.mark.parametrize("size", [80, 150])
def test_letters_over_a_quarter_of_the_image_are_found(size):
    image = drawn("R L", at=(40, 40), size=size)
    assert covered(image, [box for box, _ in detector.find_text(image)]) > 0.98


def test_a_line_is_found_where_all_else_is_flat():
    image = drawn("DOE JANE", at=(1300, 1500), size=16, shape=(1400, 1700))
    found = detector.find_text(image)
    assert covered(image, [box for box, _ in found]) > 0.98
    assert all(box.top > 1280 and box.left > 1480 for box, _ in found)


def test_a_small_slice_is_no_text(data):
    for path in (data / SMALL_SLICES).glob("*.dcm"):
        plane = pydicom.dcmread(path).pixel_array
        assert plane.shape == (77, 52, 3)
        assert detector.find_text(plane) == []


def test_a_box_within_another_is_left_out_and_lends_its_score():
    around, within, beside = Box(0, 0, 9, 9), Box(2, 2, 5, 9), Box(5, 5, 12, 9)
    found = network._outermost([(within, 0.9), (around, 0.6), (beside, 0.7)])
    assert found == [(around, 0.9), (beside, 0.7)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (33, 7), (40, 40, 3), (3, 1500)])
def test_images_of_odd_shapes_without_text(shape):
    assert detector.find_text(np.full(shape, 90, np.uint8)) == []


def test_boxes_lie_inside_the_image():
    image = drawn("EDGE OF THE IMAGE", at=(-4, -6), size=24, shape=(60, 200))
    boxes = [box for box, _ in detector.find_text(image)]
    assert boxes
    for box in boxes:
        assert 0 <= box.top < box.bottom <= 60
        assert 0 <= box.left < box.right <= 200


def test_what_is_late_is_rejected():
    image = drawn("DOE JANE", at=(100, 20), size=20, shape=(1024, 1024))
    detector.find_text(image[:32, :32])  # loaded before
    with pytest.raises(InputError) as caught:
        detector.find_text(image, deadline_s=0.01)
    assert caught.value.code == "unclean-pixels"
    assert "TimeoutError" in caught.value.reason
    assert detector.find_text(image)  # the next look has all its time


@pytest.mark.parametrize("fault", [RuntimeError("DOE^JANE"), MemoryError()])
def test_a_fault_is_rejected_and_tells_nothing(monkeypatch, fault):
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(network, "find", fail)
    with pytest.raises(InputError) as caught:
        detector.find_text(np.zeros((64, 64), np.uint8))
    assert caught.value.code == "unclean-pixels"
    told = "".join(traceback.format_exception(caught.value))
    assert type(fault).__name__ in told
    assert "DOE" not in told
    assert caught.value.__context__ is None


@pytest.mark.parametrize("missing", ["openvino", "cv2", "rapidocr"])
def test_without_the_extra_the_message_says_what_to_install(monkeypatch, missing):
    detector.require()
    find_spec = detector.find_spec
    monkeypatch.setattr(
        detector, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(OptionError, match=r'pip install "dicomdask\[text\]"'):
        detector.require()


def test_a_package_without_its_model_is_missing(monkeypatch):
    monkeypatch.setattr(detector, "_MODEL", "models/none.onnx")
    with pytest.raises(OptionError, match="not whole"):
        detector.require()


def test_the_identity_names_package_and_model():
    assert detector.identity().startswith("rapidocr ")
    assert ".onnx" in detector.identity()


def test_the_packages_are_loaded_by_a_look_only():
    code = "import sys; from dicomdask.burnedin import detector; detector.require()\n"
    code += "print([n for n in ('cv2', 'openvino', 'rapidocr') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_look_loads_nothing_that_reports_its_use():
    code = "import sys; import numpy; from dicomdask.burnedin import detector\n"
    code += "image = numpy.zeros((64, 64), numpy.uint8); image[20:40, 20:40] = 255\n"
    code += "detector.find_text(image)\n"
    code += "assert 'openvino' in sys.modules\n"
    code += "told = [n for n in sys.modules if 'telemetry' in n or '.ovc' in n]\n"
    code += "print(told)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_fork_finds_what_the_process_before_it_finds():
    code = "import os, numpy; from dicomdask.burnedin import detector\n"
    code += "image = numpy.zeros((64, 96), numpy.uint8); image[20:40, 20:40] = 255\n"
    code += "detector.load(); image[::3, 50:70:3] = 255\n"
    code += "before = detector.find_text(image)\n"
    code += "if os.fork():\n    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    code += "os._exit(0 if detector.find_text(image) == before else 1)"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0
