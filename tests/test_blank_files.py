"""Blank boxes inside real files of every transfer syntax; pydicom alone reads them."""

import io
import shutil

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames, get_frame
from pydicom.uid import JPEGLosslessSV1, RLELossless

from dicomdask.deid import clean_file
from dicomdask.errors import InputError
from dicomdask.header import read_dataset
from dicomdask.model import Box
from dicomdask.pixels import (
    blank,
    blank_frames,
    decode_frames,
    reference_frames,
    without_loss,
)
from dicomdask.pixels.blanks import files
from dicomdask.pixels.blanks.dct import read_frame
from dicomdask.pixels.blanks.rule import mask_of, widened
from dicomdask.pixels.codecs import DEFLATED_FRAMES
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.test_deid_dciodvfy import errors

STORE = "pydicom__pydicom-data/data_store/data/"
TESTS = "pydicom__pydicom/src/pydicom/data/test_files/"
STONE = "cornerstonejs__cornerstone3D/packages/dicomImageLoader/testImages/"
CT = STONE + "CTImage.dcm_"
UID = "1.2.840.10008.1.2.4"

NATIVE = [
    "qurit__rt-utils/tests/mock_data/ct_2.dcm",
    "dcmjs-org__dcmjs/examples/data/QIICR_Test3/tumor_User1_Manual_Trial1.dcm",
    "dcmjs-org__dcmjs/test/sample-dicom.dcm",
    "ImagingDataCommons__highdicom/data/test_files/dx_image.dcm",
    "ImagingDataCommons__highdicom/data/test_files/"
    "seg_image_sm_control_labelmap_palette_color.dcm",
    *(STORE + name for name in ("SC_rgb_16bit.dcm", "SC_rgb_32bit_2frame.dcm")),
    *(STORE + name for name in ("parametric_map_float.dcm", "mlut_18.dcm")),
    *(STORE + name for name in ("parametric_map_double_float.dcm", "liver_expb.dcm")),
    *(STORE + name for name in ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm")),
    *(STORE + name for name in ("OBXXXX1A_expb_2frame.dcm", "SC_rgb_expb_2frame.dcm")),
    *(STORE + name for name in ("emri_small_big_endian.dcm",)),
    STORE + "SC_rgb_expb_16bit_2frame.dcm",
    STORE + "SC_ybr_full_uncompressed.dcm",
    CT + "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
    TESTS + "rtdose.dcm",
]
DEFLATED = [STORE + "liver_deflate.dcm", STORE + "liver_nonbyte_aligned_deflate.dcm"]
RLE = [
    *(STORE + name for name in ("OBXXXX1A_rle_2frame.dcm", "emri_small_RLE.dcm")),
    *(STORE + name for name in ("liver_rle.dcm", "liver_nonbyte_aligned_rle.dcm")),
    *(TESTS + name for name in ("SC_rgb_rle_32bit.dcm", "SC_rgb_rle_16bit_2frame.dcm")),
    *(TESTS + name for name in ("rtdose_rle.dcm", "MR_small_RLE.dcm")),
]
RECODED = [
    CT + f"JPEGProcess14TransferSyntax_{UID}.57.dcm",
    CT + f"JPEGProcess14SV1TransferSyntax_{UID}.70.dcm",
    STONE + "TestPattern_JPEG-Lossless_RGB.dcm",
    TESTS + "SC_rgb_jpeg_gdcm.dcm",
    STORE + "bad_sequence.dcm",
    CT + f"JPEGLSLosslessTransferSyntax_{UID}.80.dcm",
    STONE + "TestPattern_JPEG-LS-Lossless.dcm",
    *(STORE + name for name in ("JLSL_16_15_1_1F.dcm", "JLSL_08_07_0_1F.dcm")),
    STORE + "emri_small_jpeg_ls_lossless.dcm",
    "ImagingDataCommons__highdicom/data/test_files/sm_image_jpegls.dcm",
    "ImagingDataCommons__highdicom/data/test_files/sm_image_jpegls_nobot.dcm",
    STORE + "emri_small_jpeg_2k_lossless.dcm",
    *(STORE + name for name in ("liver_j2k.dcm", "liver_nonbyte_aligned_j2k.dcm")),
    *(TESTS + name for name in ("GDCMJ2K_TextGBR.dcm", "MR_small_jp2klossless.dcm")),
    *(TESTS + name for name in ("J2K_pixelrep_mismatch.dcm", "examples_jpeg2k.dcm")),
    STORE + "HTJ2KLossless_08_RGB.dcm",
]
LOSSY = [
    CT + f"JPEGLSLossyTransferSyntax_{UID}.81.dcm",
    *(TESTS + f"JPEGLSNearLossless_{bits}.dcm" for bits in ("08", "16")),
    *(TESTS + f"SC_rgb_jls_lossy_{kind}.dcm" for kind in ("line", "sample")),
    STORE + "US1_J2KI.dcm",
    CT + f"JPEG2000TransferSyntax_{UID}.91.dcm",
    *(TESTS + name for name in ("SC_rgb_gdcm_KY.dcm", "JPEG2000.dcm")),
    STORE + "HTJ2K_08_RGB.dcm",
]
DCT = [
    STONE + "TestPattern_JPEG-Baseline_YBR422.dcm",
    STONE + "TestPattern_JPEG-Baseline_YBRFull.dcm",
    CT + f"JPEGProcess1TransferSyntax_{UID}.50.dcm",
    "pydicom__deid-data/deid_data/data/humans/ctbrain1.dcm",
    "pydicom__deid-data/deid_data/data/dicom-cookies/image1.dcm",
    *(TESTS + f"SC_rgb_dcmtk_+eb+{kind}.dcm" for kind in ("cr", "cy+n1", "cy+n2")),
    *(TESTS + f"SC_rgb_dcmtk_+eb+{kind}.dcm" for kind in ("cy+np", "cy+s2", "cy+s4")),
    *(TESTS + f"SC_rgb_{kind}.dcm" for kind in ("small_odd_jpeg", "jpeg_lossy_gdcm")),
    *(TESTS + f"SC_rgb_{kind}.dcm" for kind in ("jpeg_dcmtk", "jpeg_app14_dcmd")),
    *(TESTS + f"SC_jpeg_no_color_transform{end}.dcm" for end in ("", "_2")),
    TESTS + "examples_ybr_color.dcm",
    CT + f"JPEGProcess2_4TransferSyntax_{UID}.51.dcm",
    STONE + "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
    TESTS + "JPGExtended.dcm",
]
GREY = [
    CT + f"JPEGProcess1TransferSyntax_{UID}.50.dcm",
    CT + f"JPEGProcess2_4TransferSyntax_{UID}.51.dcm",
    STONE + "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
    TESTS + "JPGExtended.dcm",
]
KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
EXACT = [*NATIVE, *DEFLATED, *RLE, *RECODED, *LOSSY]
REFUSED = [
    CT + f"JPEGProcess6_8TransferSyntax_{UID}.53.dcm",
    CT + f"JPEGProcess10_12TransferSyntax_{UID}.55.dcm",
]

pytestmark = pytest.mark.filterwarnings("ignore")


def read(data, name):
    return read_dataset((data / name).read_bytes())


def written(dataset):
    if dataset.file_meta.TransferSyntaxUID == DEFLATED_FRAMES:  # pydicom does not know
        return dataset.PixelData
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def frames_of(dataset):
    """Return all frames as pydicom reads them, or as we do where it does not."""
    syntax = dataset.file_meta.TransferSyntaxUID
    is_bits = dataset.BitsAllocated == 1 and syntax == RLELossless
    if is_bits or syntax == DEFLATED_FRAMES:
        return decode_frames(dataset)
    return reference_frames(written(dataset))


def boxes_of(dataset):
    """Return two boxes in the first frame and one in the last, none in between."""
    rows, columns = dataset.Rows, dataset.Columns
    n = int(dataset.get("NumberOfFrames") or 1)
    boxes = [[] for _ in range(n)]
    boxes[-1] = [Box(rows // 2, 1, rows // 2 + 1, 3)]
    boxes[0] = [
        Box(rows // 5, columns // 7, rows // 5 + max(1, rows // 9), columns // 2),
        Box(rows - 2, columns - 3, rows + 5, columns + 5),
    ]
    return boxes


def photometric_of(dataset):
    return str(dataset.PhotometricInterpretation)


@pytest.mark.parametrize("name", EXACT)
def test_boxes_are_blank_and_all_else_is_what_pydicom_read_before(name, data):
    dataset = read(data, name)
    boxes = boxes_of(dataset)
    before = frames_of(dataset)
    found = blank_frames(dataset, boxes)
    after = frames_of(found.dataset)
    wanted = [
        blank(frame, some, photometric_of(dataset))
        for frame, some in zip(before, boxes, strict=True)
    ]
    np.testing.assert_array_equal(after, np.stack(wanted))
    assert after.dtype == before.dtype
    assert found.changed == tuple(n for n, some in enumerate(boxes) if some)
    syntaxes = {ds.file_meta.TransferSyntaxUID for ds in (dataset, found.dataset)}
    assert len(syntaxes) == 1


@pytest.mark.parametrize("name", EXACT)
def test_the_data_set_itself_and_all_other_elements_stay(name, data):
    dataset, again = read(data, name), read(data, name)
    found = blank_frames(dataset, boxes_of(dataset)).dataset
    assert written(dataset) == written(again)
    gone = {"ExtendedOffsetTable", "ExtendedOffsetTableLengths"}
    for element in again:
        if element.keyword in gone:
            assert element.tag not in found
        elif element.keyword not in {*KEYWORDS, "PhotometricInterpretation"}:
            assert found[element.tag] == element
    is_ict = photometric_of(again) == "YBR_ICT"
    told = "YBR_RCT" if is_ict else photometric_of(again)
    assert photometric_of(found) == told


@pytest.mark.parametrize("name", [*RECODED, *LOSSY, *RLE, *DEFLATED, *DCT])
def test_frames_without_a_box_keep_their_bytes(name, data):
    dataset = read(data, name)
    n = int(dataset.get("NumberOfFrames") or 1)
    boxes = boxes_of(dataset)
    after = blank_frames(dataset, boxes).dataset
    pairs = [
        [
            frame.rstrip(b"\0")
            for frame in generate_frames(ds.PixelData, number_of_frames=n)
        ]
        for ds in (dataset, after)
    ]
    assert len(pairs[1]) == n
    for some, old, new in zip(boxes, *pairs, strict=True):
        assert some or old.rstrip(b"\0") == new.rstrip(b"\0")


@pytest.mark.parametrize("name", NATIVE)
def test_in_uncompressed_pixels_only_bytes_of_boxes_change(name, data):
    dataset = read(data, name)
    boxes = boxes_of(dataset)
    after = blank_frames(dataset, boxes).dataset
    keyword = next(
        word
        for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        if word in dataset
    )
    old, new = (np.frombuffer(ds[keyword].value, np.uint8) for ds in (dataset, after))
    assert len(old) == len(new)
    n = sum(int(mask_of((dataset.Rows, dataset.Columns), some).sum()) for some in boxes)
    size = max(1, dataset.BitsAllocated // 8) * dataset.SamplesPerPixel
    assert (old != new).sum() <= n * size


def test_two_pixels_that_share_their_chroma_are_grey_together(data):
    dataset = read(data, STONE + "US-YBR_FULL_422-EVRLE.dcm")
    columns = dataset.Columns
    after = blank_frames(dataset, [[Box(10, 101, 40, 304)]]).dataset
    old, new = (
        np.frombuffer(ds.PixelData, np.uint8)[: dataset.Rows * columns * 2].reshape(
            dataset.Rows, columns // 2, 4
        )
        for ds in (dataset, after)
    )
    assert (new[10:40, 51:152] == [0, 0, 128, 128]).all()
    luma = [pairs[..., :2].reshape(dataset.Rows, columns) for pairs in (old, new)]
    inside = mask_of((dataset.Rows, columns), [Box(10, 101, 40, 304)])
    assert (luma[1][inside] == 0).all()
    np.testing.assert_array_equal(luma[1][~inside], luma[0][~inside])
    chroma = widened(inside, 1)[:, ::2]
    np.testing.assert_array_equal(new[~chroma], old[~chroma])


def raw(stream):
    """Return what libjpeg-turbo decodes, its colours as they are coded."""
    is_colour = len(read_frame(stream).components) == 3
    space = "YCBCR" if is_colour else None
    return imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)


def whole_units(box, height, width):
    return Box(
        box.top // height * height,
        box.left // width * width,
        -(-box.bottom // height) * height,
        -(-box.right // width) * width,
    )


@pytest.mark.parametrize("name", DCT)
def test_of_a_jpeg_only_units_that_a_box_touches_change(name, data):
    dataset = read(data, name)
    boxes = boxes_of(dataset)
    found = blank_frames(dataset, boxes)
    assert found.recoded == ()
    pair = dataset, found.dataset
    by_pydicom = [reference_frames(written(ds)) for ds in pair]
    for number in found.changed:
        streams = [
            get_frame(ds.PixelData, number, number_of_frames=len(boxes)) for ds in pair
        ]
        height, width = read_frame(streams[0]).unit
        units = [whole_units(box, height, width) for box in boxes[number]]
        inside = mask_of((dataset.Rows, dataset.Columns), units)
        reach = max(height, width) // 8 - 1  # where chroma may be smoothed
        outside, core = ~widened(inside, reach), ~widened(~inside, reach)
        assert core.any() or inside.all() or inside.size < 256
        by_turbo = [raw(stream) for stream in streams]
        for old, new in ([frames[number] for frames in by_pydicom], by_turbo):
            np.testing.assert_array_equal(new[outside], old[outside])
            assert len(np.unique(new[core], axis=0)) <= 1
            if dataset.SamplesPerPixel == 1:
                assert (new[inside] <= old[~inside].min() + 1).all()
        assert dataset.SamplesPerPixel == 1 or (by_pydicom[1][number][core] <= 1).all()


@pytest.mark.parametrize("name", REFUSED)
def test_progressive_jpeg_is_refused(name, data):
    dataset = read(data, name)
    with pytest.raises(InputError) as caught:
        blank_frames(dataset, boxes_of(dataset))
    assert caught.value.code == "unclean-pixels"
    assert caught.value.__context__ is None


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy")
@pytest.mark.parametrize(
    "name",
    [
        STORE + "US1_J2KI.dcm",
        STORE + "JPGLosslessP14SV1_1s_1f_8b.dcm",
        STORE + "OBXXXX1A_rle_2frame.dcm",
        STORE + "gdcm-US-ALOKA-16_big.dcm",
        TESTS + "examples_ybr_color.dcm",
        TESTS + "JPGExtended.dcm",
        TESTS + "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        CT + f"JPEGLSLossyTransferSyntax_{UID}.81.dcm",
        CT + f"JPEGLSLosslessTransferSyntax_{UID}.80.dcm",
    ],
)
def test_a_blanked_file_is_cleaned_as_any_other(name, data, tmp_path):
    dataset = read(data, name)
    policy, key = load_policy("research"), Key(b"0123456789abcdef")
    plain = clean_file(dataset, policy, key)
    blanked = blank_frames(dataset, boxes_of(dataset)).dataset
    found = clean_file(blanked, policy, key)
    assert found.path == plain.path
    assert found.pixels != plain.pixels
    (tmp_path / "plain.dcm").write_bytes(plain.data)
    (tmp_path / "blank.dcm").write_bytes(found.data)
    assert errors(tmp_path / "blank.dcm") <= errors(tmp_path / "plain.dcm")
    wanted = reference_frames(written(blanked))
    np.testing.assert_array_equal(reference_frames(found.data), wanted)


def cleaned(dataset):
    try:
        return clean_file(dataset, load_policy("research"), Key(b"0123456789abcdef"))
    except InputError as error:
        return error.code


@pytest.mark.parametrize("name", [*NATIVE, *LOSSY, *DCT])
def test_a_file_that_has_been_looked_at_is_cleaned_the_same(name, data):
    fresh, looked_at = read(data, name), read(data, name)
    decode_frames(looked_at)
    assert cleaned(looked_at) == cleaned(fresh)


# --- JPEG with loss, written without --------------------------------------------


@pytest.mark.parametrize("name", GREY)
def test_what_was_decoded_is_written_without_loss(data, name):
    before = read(data, name)
    after = without_loss(before)
    assert after.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert before.file_meta.TransferSyntaxUID != JPEGLosslessSV1
    wanted = decode_frames(before)
    again = pydicom.dcmread(io.BytesIO(written(after)))
    found = again.pixel_array
    assert np.array_equal(found.reshape(wanted.shape), wanted)
    told = {element.tag for element in after} ^ {element.tag for element in before}
    assert not told
    assert after.get("LossyImageCompression") == before.get("LossyImageCompression")


@pytest.mark.parametrize("name", [name for name in (*DCT, *RLE) if name not in GREY])
def test_only_grey_jpegs_are_written_without_loss(data, name):
    found = read(data, name)
    if found.SamplesPerPixel == 1 and name in DCT:
        without_loss(found)
        return
    with pytest.raises(InputError) as caught:
        without_loss(found)
    assert caught.value.code == "unclean-pixels"


def test_another_outcome_than_was_decoded_is_not_passed(data, monkeypatch):
    encode = files.to_lossless

    def wrong(samples, precision):
        return encode(
            samples ^ (np.arange(samples.size) == 7).reshape(samples.shape), precision
        )

    monkeypatch.setattr(files, "to_lossless", wrong)
    with pytest.raises(InputError) as caught:
        without_loss(read(data, GREY[0]))
    assert caught.value.code == "unclean-pixels"
