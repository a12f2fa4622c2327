"""ENVI headers: their fields, read and written; and scenes written as ENVI."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from special_steps.core.atomic import atomic_write
from special_steps.core.errors import UserError
from special_steps.io.record import reading

NEXT_LIST = r"\n[ \t]*[A-Za-z][\w \t]*=\s*\{"  # a field in braces begins
TWICE = "(stated twice)"  # after the values of a field that stands twice with different ones: it cannot be used
LARGEST = 64 << 20  # bytes; wavelengths of thousands of bands take a few hundred thousand
DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}


def parse_envi_header(text: str, where: str) -> dict[str, str]:
    """Split an ENVI header into its fields: lower-case names, values as text, braces taken off.

    Lines that begin with ; are comments, also inside braces. A value may begin on the line after its name. A
    field that stands twice with different values has both, and TWICE, so that no number is read from it.

    Raises:
        UserError: naming `where`, when it is no ENVI header, or a brace is not closed.
    """
    text = text.removeprefix("\ufeff").removeprefix("ï»¿")  # byte order mark, also read as Latin-1
    if not text.lstrip().upper().startswith("ENVI"):
        raise UserError(f"{where}: not an ENVI header (its first word is not ENVI)")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(";")]
    fields: dict[str, str] = {}
    number = 0
    while number < len(lines):
        name, equals, value = lines[number].partition("=")
        number += 1
        name, value = " ".join(name.lower().replace("_", " ").split()), value.strip()
        if not equals or not name or "{" in name or "}" in name:
            continue
        if not value and number < len(lines):
            following = lines[number].strip()
            if following.startswith("{") or "=" not in following:
                value = following
                number += 1
        if name == "description" and (
            size := _balanced([value, *lines[number:]])
        ):  # may hold braces
            fields[name] = "\n".join([value, *lines[number : number + size - 1]]).strip("{} \t\n")
            number += size - 1
            continue
        if value.startswith("{"):
            while "}" not in value and number < len(lines):
                value += "\n" + lines[number]
                number += 1
            inside, closed, _ = value[1:].partition("}")
            if not closed or re.search(NEXT_LIST, inside):
                raise UserError(
                    f"{where}: the brace of field '{name}' is not closed; write }} at its end"
                )
            value = inside
        value = value.strip().strip("{}").strip()
        if name in fields and "".join(fields[name].split()) != "".join(value.split()):
            value = f"{fields[name]} / {value}".removesuffix(TWICE) + f" {TWICE}"
        fields[name] = value
    return fields


def _balanced(lines: Sequence[str]) -> int:
    """How many lines it takes until as many braces are closed as were opened; 0 where none is, or they never are."""
    depth = 0
    for number, line in enumerate(lines, 1):
        depth += line.count("{") - line.count("}")
        if depth <= 0:
            return number if "{" in lines[0] else 0
    return 0


def read_envi_header(path: Path) -> dict[str, str]:
    """The fields of a header file.

    Raises:
        UserError: when it is none, or larger than any header.
    """
    with reading(path):
        if path.stat().st_size > LARGEST:
            raise UserError(
                f"{path}: {path.stat().st_size} bytes are no ENVI header; give the scene's own .hdr"
            )
        if not path.is_file():
            raise UserError(
                f"{path}: a header that is no file (a folder, device or pipe); give a file"
            )
        data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:64]:
        raise UserError(
            f"{path}: no plain text (UTF-16, or a binary file); an ENVI header is text, so save it as UTF-8"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return parse_envi_header(text, str(path))


def is_number(text: str) -> bool:
    """Whether a text reads as a number, NaN and infinity too."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def numbers_in(text: str) -> list[float]:
    """The numbers of a list, with or without braces or brackets, separated by commas or blanks.

    Raises:
        ValueError: when it holds anything else.
    """
    if "_" in text:  # Python's own way to group digits
        raise ValueError(text)
    return [float(v) for v in re.split(r"[,\s]+", text.strip("{}[](), \t\r\n")) if v]


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
