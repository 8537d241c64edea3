"""Policy files: what they may say, what is refused, and what `policy show` prints."""

import json
import secrets

import pytest
from click.testing import CliRunner
from pydicom import Dataset

import dicomdask
from dicomdask.cli import main
from dicomdask.deid import clean_header, explain
from dicomdask.errors import OptionError, PolicyError
from dicomdask.policy import OPTION_CODES, describe, load_policy, parse_policy
from dicomdask.pseudonym import Key
from tests.builders import make_instance, make_series, to_bytes, write_series

KEY = Key(b"0123456789abcdef")
HEAD = 'extends = "research"\nname = "ours"\n'


def policy(*rules, head=HEAD, **options):
    return load_policy("ours", text=head + "".join(rules), **options)


def rule(**keys):
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n[[rule]]\n" + "\n".join(lines) + "\n"


def clean(chosen, **elements):
    return clean_header(make_instance(**elements), chosen, KEY)


@pytest.mark.parametrize(
    ("keys", "keyword", "value", "wanted"),
    [
        (
            {"keyword": "StudyDescription", "action": "K"},
            "StudyDescription",
            "a b",
            "a b",
        ),
        (
            {"keyword": "StudyDescription", "action": "C"},
            "StudyDescription",
            "CT b",
            "CT",
        ),
        (
            {"keyword": "StudyDescription", "action": "Z"},
            "StudyDescription",
            "CT",
            None,
        ),
        ({"tag": "(0008,1030)", "action": "K"}, "StudyDescription", "a b", "a b"),
        ({"tag": "0018xxxx", "action": "X"}, "KVP", "120", "absent"),
        ({"vr": "DA", "action": "X"}, "SeriesDate", "20200229", "absent"),
        (
            {"regex": "Window(Center|Width)", "action": "X"},
            "WindowWidth",
            "4",
            "absent",
        ),
        ({"keyword": "Rows", "action": "X"}, "Rows", 16, "absent"),
        (
            {"keyword": "ContentDate", "action": "K"},
            "ContentDate",
            "20200229",
            "20200229",
        ),
        ({"keyword": "StationName", "action": "D"}, "StationName", "x", None),
        ({"keyword": "PatientAge", "action": "K"}, "PatientAge", "099Y", "089Y"),
    ],
)
def test_rules(keys, keyword, value, wanted):
    cleaned = clean(policy(rule(**keys)), **{keyword: value})
    assert cleaned.get(keyword, "absent") == wanted


def test_later_rules_win_and_options_add_up():
    chosen = policy(
        rule(vr="LO", action="X"),
        rule(keyword="Manufacturer", action="K"),
        head='extends = "basic"\noptions = ["retain-device-identity"]\n',
        options=["retain-uids"],
    )
    assert chosen.name == "custom"
    assert chosen.options == ("retain-device-identity", "retain-uids")
    assert clean(chosen, Manufacturer="Own Works").Manufacturer == "Own Works"
    assert "DeviceSerialNumber" not in clean(chosen, DeviceSerialNumber="1")
    assert clean(chosen, StationName="CT1").StationName == "CT1"


def test_private_elements_by_creator_and_element():
    ds = make_instance()
    block = ds.private_block(0x0029, "ACME", create=True)
    block.add_new(1, "LO", "one")
    block.add_new(2, "DS", "2.5")
    block.add_new(3, "OB", b"xx")
    whole = policy(rule(private="ACME", action="K"))
    one = policy(rule(private="ACME", element="0029,xx02", action="K"))
    assert clean_header(ds, whole, KEY)[0x00291001].value == "one"
    assert 0x00291003 not in clean_header(ds, whole, KEY)
    kept = clean_header(ds, one, KEY)
    assert (kept[0x00291002].value, 0x00291001 in kept) == ("2.5", False)


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("extends = \n\n", "line 1", "not TOML"),
        ('extends = "all"\n', "line 1", '"research" or "basic"'),
        ('name = "x"\n', "line 1", '"research" or "basic"'),
        (HEAD + 'colour = "red"\n', "line 3", "use extends, look, name"),
        ('extends = "basic"\nname = "research"\n', "line 2", "no shipped policy's"),
        (HEAD + 'options = ["retain-names"]\n', "line 3", "support clean-descriptors"),
        (
            HEAD + 'options = ["retain-longitudinal-full-dates"]\n',
            "line 3",
            "either modified or full",
        ),
        (HEAD + rule(keyword="Rows"), "line 4", "action is one of X, Z, D, U, C, K"),
        (HEAD + rule(action="X"), "line 4", "one of keyword, tag, private, vr, regex"),
        (HEAD + rule(keyword="Rowss", action="X"), "line 5", "check its spelling"),
        (HEAD + rule(keyword="Rows", act="X"), "line 6", "act is unknown"),
        (HEAD + rule(tag="0008", action="X"), "line 5", '"(0008,1030)"'),
        (HEAD + rule(regex="(", action="X"), "line 5", "does not compile"),
        (
            HEAD + rule(keyword="PatientName", action="K"),
            "line 5",
            "rules of their own",
        ),
        (HEAD + rule(keyword="PixelData", action="X"), "line 5", "rules of their own"),
        (HEAD + rule(private="A", action="Z"), "line 5", "K or X"),
        (
            HEAD + rule(private="A", element="0028,xx01", action="K"),
            "line 5",
            "odd group",
        ),
        (
            HEAD + rule(keyword="Rows", action="K") + rule(vr="XX", action="K"),
            "line 9",
            "no element",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_what_would_be_right(
    text, line, fix
):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert line in str(caught.value)
    assert fix in str(caught.value)


DEVICE = '[[pixels]]\nmanufacturer = "a"\nmodel = "b"\n'


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        (HEAD + DEVICE + 'model_name = "c"\n', "line 6", "manufacturer, model"),
        (HEAD + DEVICE + "blank = [[1, 2, 1, 9]]\n", "line 6", "[top, left, bottom"),
        (HEAD + DEVICE + "keep = [1, 2, 3, 4]\n", "line 6", "[top, left, bottom"),
        (HEAD + DEVICE + "rows = 0\n", "line 6", "a number of pixels"),
        (HEAD + DEVICE + "rows = true\n", "line 6", "a number of pixels"),
        (HEAD + DEVICE + 'looked = "yes"\n', "line 6", "true or false"),
        (HEAD + DEVICE + "looked = true\n", "line 3", "names rows, columns too"),
        (HEAD + '[[pixels]]\nmodel = "("\n', "line 4", "does not compile"),
        (HEAD + "[[pixels]]\nrows = 9\n", "line 3", "names manufacturer too"),
        (HEAD + DEVICE + DEVICE + "modality = 3\n", "line 9", "is a text"),
        (HEAD + "pixels = 3\n", "line 3", "under [[pixels]]"),
        (HEAD + '[look]\nmodality = ["MR"]\n', "line 4", "use modalities"),
        (HEAD + '[look]\nmodalities = "MR"\n', "line 4", "no list"),
        (HEAD + "look = 3\n", "line 3", "lists below it"),
    ],
)
def test_a_broken_rule_about_pixels_is_refused_as_well(text, line, fix):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert line in str(caught.value)
    assert fix in str(caught.value)


def test_rules_about_pixels_change_the_digest():
    texts = ["", DEVICE, DEVICE + "rows = 3\n", '[look]\nmodalities = ["CT"]\n']
    digests = {load_policy("ours", text=HEAD + text).digest for text in texts}
    assert len(digests) == len(texts)


def test_the_digest_follows_the_file_but_not_its_comments():
    text = HEAD + rule(keyword="Rows", action="X")
    digests = {
        load_policy("ours", text=one).digest
        for one in (HEAD, text, text.replace('"X"', '"K"'), f"{text}# more\n")
    }
    assert len(digests) == 3


def test_describe_tells_the_rule_and_its_line():
    chosen = policy(rule(keyword="Rows", action="X", reason="too many"))
    assert ("Rows", "X", "policy file, line 5: too many") in describe(chosen)


def test_convert_takes_a_policy_file_and_keeps_to_it(tmp_path, key_file, convert):
    folder, file = tmp_path / "in", tmp_path / "ours.toml"
    write_series(folder, make_series(3, StudyDescription="CT own"))
    file.write_text(HEAD + rule(keyword="StudyDescription", action="C"))
    store = tmp_path / "a.zarr"
    convert(folder, store, policy=str(file))
    dataset = dicomdask.open_dataset(str(store))
    header = json.loads(dataset.volumes["header"][0])
    assert header["00081030"]["Value"] == ["CT"]
    assert dataset.commit.policy["name"] == "ours"
    assert [code for code, _ in dataset.commit.policy["codes"]] == ["113100", "113107"]
    assert "StudyDescription" not in json.dumps(dataset.commit.settings)
    convert(folder, store, policy=str(file))
    file.write_text(HEAD)
    with pytest.raises(dicomdask.errors.PlanError, match="policy digest"):
        convert(folder, store, policy=str(file))
    file.write_text("extends = 1")
    with pytest.raises(OptionError, match=r"ours\.toml: line 1"):
        convert(folder, store, policy=str(file))
    with pytest.raises(OptionError, match="cannot be read"):
        convert(folder, store, policy=str(tmp_path / "none.toml"))


# --- policy show --------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(main, ["policy", "show", *words])


def test_show_prints_each_row_with_its_reason():
    found = run("--option", "retain-device-identity")
    lines = {line.split()[0]: line.split(None, 2) for line in found.stdout.splitlines()}
    assert lines["StationName"][1:] == ["K", "retain-device-identity: K"]
    assert lines["StudyDate"][1] == "C"
    assert lines["*"][1:] == ["X", "not listed"]
    document = json.loads(run("--json").stdout)
    assert document["digest"] == load_policy("research").digest
    assert len(document["actions"]) > 1500


def test_the_statement_names_what_is_applied():
    text = run("--statement", "--option", "clean-descriptors").stdout
    for value, meaning in load_policy("research", options=["clean-descriptors"]).codes:
        assert f"| {value} | {meaning} |" in text
    assert "Options not in force: clean-faces, clean-graphics" in text
    assert "text are not passed: the instance is rejected" in text
    text = run("--statement", "--option", "clean-pixels").stdout
    assert "text are looked at, of many frames what is new in each, and blanked" in text
    assert "of 0 rules for devices" in text


def test_show_tells_what_happens_to_a_file_and_no_value(tmp_path):
    markers = [f"Q{secrets.token_hex(4).upper()}" for _ in range(9)]
    item = Dataset()
    item.PatientComments, item.ReferencedSOPInstanceUID = markers[0], "1.2.3"
    ds = make_instance(
        PatientName=markers[1],
        ConvolutionKernel=markers[2],
        SeriesDescription=markers[3],
        StationName=markers[4],
        ReferencedImageSequence=[item],
        PatientID=markers[5],
    )
    ds.private_block(0x0029, markers[6], create=True).add_new(1, "LO", markers[7])
    ds.add_new(0x60000022, "LO", markers[8])
    path = tmp_path / "a.dcm"
    path.write_bytes(to_bytes(ds))
    text = run(str(path), "--option", "retain-device-identity").stdout
    assert not [marker for marker in markers if marker in text]
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "unknown\n" not in text
    assert " X " in lines["(0018,1210)"]
    assert "does not show that it names nobody" in lines["(0018,1210)"]
    assert " K " in lines["(0008,1010)"]
    assert " U " in lines["(0008,1155)"]
    assert " X " in lines["(0010,4000)"]
    assert " X " in lines["(0029,1001)"]
    assert "curves and overlays" in lines["(6000,0022)"]
    assert " D " in lines["(0010,0010)"]


def test_what_is_shown_is_what_is_done():
    ds = make_instance(StationName="a", KVP="120", ConvolutionKernel="B30f")
    chosen = load_policy("research", options=list(OPTION_CODES)[:3])
    cleaned = clean_header(ds, chosen, KEY)
    for one in explain(ds, chosen):
        if one.name != "PixelData":
            assert (one.name in cleaned) == (one.action != "X"), one.name


def test_private_sequences_that_stay_are_shown_with_what_is_in_them():
    inner = Dataset()
    inner.PatientComments = "Zaphod"
    ds = make_instance()
    block = ds.private_block(0x0129, "SIEMENS Ultrasound SC2000", create=True)
    block.add_new(0x06, "SQ", [inner])
    inner.private_block(0x0129, "SIEMENS Ultrasound SC2000", create=True).add_new(
        0x07, "UI", "1.2.3"
    )
    for options, wanted in ((["retain-safe-private"], "U"), ([], "X")):
        shown = {
            one.tag: one
            for one in explain(ds, load_policy("research", options=options))
        }
        assert shown["(0129,1006)"].action == wanted
        if wanted == "U":
            assert shown["(0129,1007)"].depth == 1
            assert shown["(0129,1007)"].action == "K"
            assert shown["(0010,4000)"].action == "X"


@pytest.mark.parametrize("words", [["none.dcm"], ["--policy", "other"], ["a.toml"]])
def test_what_cannot_be_shown_is_one_sentence(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("no DICOM")
    found = run(*words)
    assert found.exit_code in {1, 2}
    assert found.stderr.startswith("dicomdask: ")
    assert found.stderr.count("\n") == 1
