"""The barrier against hostile bytes: nothing that a DICOM library says gets out."""

import logging
import threading
import warnings

import pytest

from dicomdask.errors import InputError
from dicomdask.tasks.barrier import guard, quiet

NAMES = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.made.later")


@pytest.mark.parametrize("name", NAMES)
def test_no_logger_of_a_library_speaks_and_each_does_again(name, caplog):
    with quiet():
        logging.getLogger(name).critical("a value")
    assert not caplog.records
    logging.getLogger(name).error("no value")
    assert [one.message for one in caplog.records] == ["no value"]


def test_the_first_to_leave_does_not_end_the_silence_of_another(caplog):
    entered, left = threading.Event(), threading.Event()

    def other():
        with quiet():
            entered.set()
            left.wait(5)
            logging.getLogger("pydicom").error("a value")
            warnings.warn("a value", stacklevel=1)

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        entered.wait(5)
    left.set()
    thread.join()
    assert not caplog.records
    with pytest.warns(UserWarning, match="no value"):
        warnings.warn("no value", stacklevel=1)


def test_an_unforeseen_error_is_named_by_its_class_only():
    def fail():
        raise ZeroDivisionError("a value")

    with pytest.raises(InputError) as caught:
        guard(fail)
    assert caught.value.reason == "An unforeseen ZeroDivisionError."
