"""ENVI headers: their fields, read and written; and scenes written as ENVI."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError

DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}


def parse_envi_header(text: str, where: str) -> dict[str, str]:
    """Split an ENVI header into its fields: lower-case names, values as text, braces taken off.

    Raises:
        UserError: naming `where`, when it is no ENVI header.
    """
    if not text.lstrip().upper().startswith("ENVI"):
        raise UserError(f"{where}: not an ENVI header (its first word is not ENVI)")
    fields = {}
    for match in re.finditer(
        r"^[ \t]*([^=\n{}]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", text, re.MULTILINE
    ):
        name = " ".join(match.group(1).lower().split())
        fields[name] = match.group(2).strip().strip("{}").strip()
    return fields


def envi_list(values: np.ndarray, form: str) -> str:
    """Numbers as a header's field, in braces, twelve a line; `form` is each one's format."""
    texts = [format(v, form) for v in values]
    lines = [", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)]
    return "{\n" + ",\n".join(lines) + "}"


def write_envi(
    header: Path, cube: np.ndarray, description: str, fields: Mapping[str, object]
) -> None:
    """Write a scene as ENVI, band interleaved by line, little endian: the header, and beside it the data as .img.

    Args:
        header: the .hdr file to write.
        cube: (band, y, x), of a dtype in DATA_TYPES.
        description: one line.
        fields: all that the header says of bands, values and place, as it is written.
    """
    codes = {dtype: code for code, dtype in DATA_TYPES.items()}
    bands, lines, samples = cube.shape
    layout = {
        "description": f"{{{description}}}",
        "samples": samples,
        "lines": lines,
        "bands": bands,
        "header offset": 0,
        "file type": "ENVI Standard",
        "data type": codes[cube.dtype.str[1:]],
        "interleave": "bil",
        "byte order": 0,
    }
    with atomic_write(header.with_suffix(".img")) as path:
        cube.transpose(1, 0, 2).astype(cube.dtype.newbyteorder("<")).tofile(path)
    with atomic_write(header) as path:
        path.write_text(
            "\n".join(["ENVI", *(f"{k} = {v}" for k, v in (layout | dict(fields)).items()), ""])
        )
