"""What a user must know: gathered for results, and numbers as a config has them."""

import logging

import numpy as np
import pytest
import yaml

from special_steps.core.notes import as_yaml, gathered

log = logging.getLogger("special")


def test_each_warning_is_gathered_once_as_one_line():
    with gathered() as told:
        log.info("not this")
        for _ in range(2):
            log.warning("%s:\n  look\tat %d", "file", 3)
        log.error("and this")
        logging.getLogger("other").warning("not that")
    log.warning("too late")
    assert told == ["file: look at 3", "and this"]


def test_inside_each_other_and_after_an_error():
    with gathered() as outer:
        with pytest.raises(ZeroDivisionError), gathered() as inner:
            log.warning("a")
            raise ZeroDivisionError
        log.warning("b")
    assert (outer, inner) == (["a", "b"], ["a"])
    assert not [f for f in log.filters if getattr(f, "__name__", "") == "keep"]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u2", "i8", "f2"])
@pytest.mark.parametrize(
    "value",
    [-9999, 0, 65535, -0.9999, 0.1, 1e20, 9.96921e36, np.finfo("f4").min, -1e34, 1e-20, 6e4],
)
def test_numbers_read_the_same_again(dtype, value):
    kind = np.dtype(dtype)
    if kind.kind != "f" and (
        value != int(value) or not np.iinfo(kind).min <= value <= np.iinfo(kind).max
    ):
        return
    with np.errstate(over="ignore"):
        stored = kind.type(value)
    if not np.isfinite(stored):
        return
    text = as_yaml(float(stored), kind)
    found = yaml.safe_load(text)
    assert not isinstance(found, str)
    assert stored == kind.type(found)


def test_numbers_are_short():
    assert [as_yaml(float(np.float32(v)), np.dtype("f4")) for v in (-0.9999, 1e20, -9999, 0)] == [
        "-0.9999", "1.0e+20", "-9999", "0"
    ]  # fmt: skip
