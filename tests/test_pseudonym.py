"""Keys and what is derived from them."""

import pickle
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicomdask.errors import PolicyError
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    MAX_SHIFT_DAYS,
    Key,
    KeyReference,
    create_key_file,
    resolve_key,
)

ONE, OTHER = Key(b"k" * 32), Key(b"l" * 32)


@given(st.text())
def test_a_uid_is_that_of_a_version_8_uuid(old):
    new = ONE.uid(old)
    number = int(new.removeprefix("2.25."))
    found = uuid.UUID(int=number)
    assert (found.version, found.variant) == (8, uuid.RFC_4122)
    assert UID(new).is_valid
    assert ONE.uid(old) == new != OTHER.uid(old)


@given(st.text())
def test_dates_always_move_back(patient):
    assert -MAX_SHIFT_DAYS <= ONE.shift_days(patient) <= -1


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_different_parts_have_different_digests(some, others):
    same = ONE.digest("use", *some) == ONE.digest("use", *others)
    assert same == (some == others)
    assert ONE.digest("use", *some) != ONE.digest("another use", *some)


def test_surrogates_of_odd_file_names_are_no_trouble():
    assert ONE.digest("source", "/a/\udcff") != ONE.digest("source", "/a/\udcfe")


def test_a_short_key_is_refused_without_showing_it():
    with pytest.raises(PolicyError, match="at least 16") as caught:
        Key(b"secret!")
    assert "secret!" not in str(caught.value)


def test_a_key_is_neither_shown_nor_pickled():
    key = Key(b"not to be seen by anybody")
    assert "not to be seen" not in repr(key)
    with pytest.raises(TypeError, match="KeyReference"):
        pickle.dumps(key)


def test_a_key_file_is_private_whole_and_made_once(tmp_path):
    path = tmp_path / "work" / "key"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create_key_file, [path] * 16))
    first = path.read_text()
    create_key_file(path)
    assert path.read_text() == first
    assert len(first.strip()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key"]


def test_a_reference_resolves_to_a_file_or_to_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("k" * 32 + "\n")
    assert resolve_key(KeyReference(str(path))).fingerprint() == ONE.fingerprint()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "k" * 32)
    assert resolve_key(KeyReference()).fingerprint() == ONE.fingerprint()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    with pytest.raises(PolicyError, match=ENVIRONMENT_VARIABLE):
        resolve_key(KeyReference())
    with pytest.raises(PolicyError, match="cannot be read"):
        resolve_key(KeyReference(str(tmp_path / "none")))
