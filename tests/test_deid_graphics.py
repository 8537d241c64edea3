"""Presentation states: what is drawn stays, and of texts the harmless words."""

import io

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

import dicomdask
from dicomdask.deid import clean_file
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.builders import make_instance, to_bytes

KEY = Key(b"0123456789abcdef")
GRAPHICS = load_policy("research", options=["clean-graphics"])
LINE = np.array([[1.0, 2.0], [3.0, 4.5]])


def presentation_state():
    """Return what highdicom writes: a line, and a text that names somebody."""
    names = (
        "AccessionNumber",
        "StudyTime",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
    )
    image = make_instance(PatientName="Beeblebrox^Zaphod")
    for keyword in (*names, "ReferringPhysicianName", "StudyDate"):
        if keyword not in image:
            setattr(image, keyword, "")
    image.BitsStored, image.HighBit = 16, 15
    layer = hd.pr.GraphicLayer("LAYER1", order=1, description="of Zaphod")
    named = hd.pr.GraphicLayer("ZAPHOD", order=2)
    line = hd.pr.GraphicObject(
        graphic_type=hd.pr.GraphicTypeValues.POLYLINE,
        graphic_data=LINE,
        units=hd.pr.AnnotationUnitsValues.PIXEL,
    )
    text = hd.pr.TextObject(
        "Liver lesion of Zaphod Beeblebrox",
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        bounding_box=(1.0, 1.0, 5.0, 5.0),
    )
    secret = hd.pr.TextObject(
        "Zaphod", units=hd.pr.AnnotationUnitsValues.PIXEL, anchor_point=(1.0, 1.0)
    )
    annotations = [
        hd.pr.GraphicAnnotation(
            referenced_images=[image], graphic_layer=layer, graphic_objects=[line]
        ),
        hd.pr.GraphicAnnotation(
            referenced_images=[image], graphic_layer=named, text_objects=[text, secret]
        ),
    ]
    return hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        series_instance_uid="1.2.3.4",
        series_number=5,
        sop_instance_uid="1.2.3.5",
        instance_number=1,
        manufacturer="SIEMENS",
        manufacturer_model_name="Zaphod 1",
        software_versions="v1",
        device_serial_number="Zaphod 2",
        content_label="ZAPHOD",
        content_description="of Zaphod",
        content_creator_name="Beeblebrox^Zaphod",
        graphic_layers=[layer, named],
        graphic_annotations=annotations,
        institution_name="Zaphod",
    )


@pytest.fixture
def cleaned():
    read = pydicom.dcmread(io.BytesIO(to_bytes(presentation_state())))
    made = clean_file(read, GRAPHICS, KEY)
    assert b"zaphod" not in made.data.lower()
    assert b"beeblebrox" not in made.data.lower()
    return pydicom.dcmread(io.BytesIO(made.data))


def test_lines_keep_their_place_and_their_image(cleaned):
    drawn = cleaned.GraphicAnnotationSequence[0]
    [line] = drawn.GraphicObjectSequence
    assert line.GraphicData == LINE.ravel().tolist()
    assert (line.GraphicType, line.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
    [reference] = drawn.ReferencedImageSequence
    source = presentation_state().GraphicAnnotationSequence[0]
    old = source.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert reference.ReferencedSOPInstanceUID == KEY.uid(old)
    assert drawn.GraphicLayer == cleaned.GraphicLayerSequence[0].GraphicLayer


def test_texts_keep_the_words_that_name_nobody(cleaned):
    text, secret = cleaned.GraphicAnnotationSequence[1].TextObjectSequence
    assert text.UnformattedTextValue == "Liver lesion of"
    assert text.BoundingBoxTopLeftHandCorner == [1.0, 1.0]
    assert secret.UnformattedTextValue == "REMOVED"
    assert secret.AnchorPoint == [1.0, 1.0]
    layers = [item.GraphicLayer for item in cleaned.GraphicLayerSequence]
    assert layers == ["LAYER1", "REMOVED"]


def test_overlays_of_presentation_states_go():
    ds = presentation_state()
    for tag, vr, value in (
        (0x60001001, "CS", "LAYER1"),
        (0x60000022, "LO", "Zaphod"),
        (0x60003000, "OW", b"Zaphod"),
    ):
        ds.add_new(tag, vr, value)
    read = pydicom.dcmread(io.BytesIO(to_bytes(ds)))
    made = pydicom.dcmread(io.BytesIO(clean_file(read, GRAPHICS, KEY).data))
    assert not [element for element in made if element.tag.group == 0x6000]


def test_other_states_and_other_policies_reject_them(tmp_path, key_file):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(to_bytes(presentation_state()))
    blending = Dataset()
    blending.update(presentation_state())
    blending.file_meta = presentation_state().file_meta
    blending.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    uid = "1.2.840.10008.5.1.4.1.1.11.4"
    blending.SOPClassUID = blending.file_meta.MediaStorageSOPClassUID = uid
    blending.SOPInstanceUID = "1.2.3.6"
    (folder / "b.dcm").write_bytes(to_bytes(blending))
    found = {
        name: dicomdask.deidentify(
            str(folder),
            str(tmp_path / name),
            options=options,
            key_file=str(key_file),
            scheduler="synchronous",
        ).codes
        for name, options in (("with", ["clean-graphics"]), ("without", []))
    }
    assert found["with"] == {"stored": 1, "unsupported-object": 1}
    assert found["without"] == {"unsupported-object": 2}
