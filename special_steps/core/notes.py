"""What a user must know, gathered while a step works: for its result, besides its log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

log = logging.getLogger("special")


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Yield a list that each warning logged inside the block is added to, once, as one line."""
    told: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        line = " ".join(record.getMessage().split())
        if record.levelno >= logging.WARNING and line not in told:
            told.append(line)
        return True

    log.addFilter(keep)
    try:
        yield told
    finally:
        log.removeFilter(keep)


def as_yaml(value: float, dtype: np.dtype) -> str:
    """A stored value as a config has to write it, so that it reads the same again.

    Args:
        value: the number.
        dtype: of the file; a float32's shortest form is shorter than its float64's.
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value)}"
    text = (
        np.format_float_scientific(dtype.type(value)) if dtype.kind == "f" else repr(float(value))
    )
    number = repr(float(text))
    return number if "." in number else number.replace("e", ".0e")  # 1e+20 is text in YAML
