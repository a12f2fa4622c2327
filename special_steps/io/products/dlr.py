"""What products of the German Aerospace Center (EnMAP, DESIS) have in common; no reader by itself.

A product is a folder of files of one stem: STEM-SPECTRAL_IMAGE.TIF (or .BSQ, .BIL, .BIP with an ENVI header),
STEM-METADATA.XML, and quality layers on its grid, STEM-QL_*.TIF. Cloud-optimised copies have _COG before the suffix.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from special_steps.core.errors import UserError, one_line
from special_steps.io import folders
from special_steps.io.envi import find_pair, open_envi
from special_steps.io.raster import open_raster
from special_steps.io.record import Source, Window, reading, small_file

_TIFF = (".tif", ".tiff")
_RAW = (".bsq", ".bil", ".bip")
_IMAGE = "SPECTRAL_IMAGE"
_METADATA = "METADATA"


@dataclass(frozen=True)
class Product:
    """Files of one product; `image` and `metadata` are None where there is no such file."""

    name: str  # the stem
    image: Path | None
    metadata: Path | None
    layers: dict[str, Path]  # by name in upper case, such as QL_QUALITY_CLOUD
    headers: list[Path]  # ENVI headers of the image
    others: list[Path]  # the image in formats that are not read, and of single detectors

    @property
    def files(self) -> list[Path]:
        """Those that are read, the image first."""
        first = [p for p in (self.image, self.metadata) if p is not None]
        return [*first, *self.headers, *self.layers.values()] if self.image else first + self.others


def products_at(path: Path, mission: str, layers: Sequence[str]) -> list[Product]:
    """Products that a folder holds, or the one that an image or a metadata file belongs to; by names alone.

    Args:
        path: a folder, STEM-SPECTRAL_IMAGE.* or STEM-METADATA.XML.
        mission: what stems begin with, such as "ENMAP".
        layers: names of the quality layers that are read.
    """
    given = _part(path.name, mission)
    if given is not None and not given[1].startswith((_IMAGE, _METADATA)):
        return []
    folder = path if path.is_dir() else path.parent if given and path.is_file() else None
    if folder is None:
        return []
    found: dict[str, list[tuple[str, Path]]] = {}
    # plain files before the _COG ones: the same values, and the name that the metadata state
    inside = names_in(folder, given[0] if given is not None and folder != path else mission)
    for file in sorted(inside, key=lambda p: ("_cog." in p.name.lower(), p.name)):
        part = _part(file.name, mission)
        if part is not None:
            found.setdefault(part[0].lower(), []).append((part[1], file))
    if folder != path and given is not None:
        found = {k: v for k, v in found.items() if k == given[0].lower()}
    products = [_product(parts, mission, layers, path) for parts in found.values()]
    return [p for p in products if p.image or p.metadata or p.others]


def names_in(folder: Path, start: str = "") -> list[Path]:
    """What lies in a folder, by name, of names that start so in any case; nothing where it cannot be listed."""
    try:
        names = folders.names_in(folder)
        return [folder / name for name in names if name.lower().startswith(start.lower())]
    except OSError:
        return []


def _part(name: str, mission: str) -> tuple[str, str] | None:
    """Stem, and which part of a product (in upper case, without _COG), a file is by its name."""
    m = re.fullmatch(
        rf"({mission}.*)-(SPECTRAL_IMAGE(?:_VNIR|_SWIR)?|METADATA|QL_[\w-]+?)(?:_COG)?"
        r"\.(?:[a-z0-9]+|xml\.xml)",
        name,
        re.IGNORECASE,
    )
    return None if m is None else (m.group(1), m.group(2).upper())


def _product(
    parts: list[tuple[str, Path]], mission: str, layers: Sequence[str], given: Path
) -> Product:
    suffixes = [*_TIFF, *_RAW]
    images = [p for part, p in parts if part == _IMAGE and p.suffix.lower() in suffixes]
    images.sort(key=lambda p: suffixes.index(p.suffix.lower()))  # a GeoTIFF, where there are both
    headers = [p for part, p in parts if part == _IMAGE and p.suffix.lower() == ".hdr"]
    metadata = [p for part, p in parts if part == _METADATA and p.suffix.lower() == ".xml"]
    stem = _part(parts[0][1].name, mission)
    tiffs = [(part, p) for part, p in parts if p.suffix.lower() in _TIFF]
    # of several spellings, a given one counts, else the first
    return Product(
        name=stem[0] if stem else "",
        image=given if given in images else next(iter(images), None),
        metadata=given if given in metadata else next(iter(metadata), None),
        layers={name: p for name in layers for part, p in reversed(tiffs) if part == name},
        headers=headers,
        others=[p for part, p in parts if part.startswith(_IMAGE) and p not in (*images, *headers)],
    )


def bands_of(
    root: Element, name: str, number: Callable[[Element], str], what: str, path: Path
) -> list[Element]:
    """The metadata's element of each band, by its number.

    Args:
        root: of the metadata.
        name: of the elements.
        number: a band's number as it is written.
        what: how the metadata call it.
        path: their file.

    Raises:
        UserError: where there are none, or one has no number.
    """
    table = next(root.iter("bandCharacterisation"), None)
    bands = [] if table is None else list(table.iter(name))
    if not bands:
        raise UserError(f"{path}: no bandCharacterisation in it; it may be cut, get it again")
    try:
        return sorted(bands, key=lambda band: int(number(band)))
    except ValueError as error:
        raise UserError(
            f"{path}: a {what} is no number ({one_line(error, 80)}); get it again"
        ) from error


def the_product(path: Path, mission: str, layers: Sequence[str]) -> tuple[Product, Path, Path]:
    """The one product at a path, its image and its metadata.

    Raises:
        UserError: when there is none or several; when the image or the metadata are missing, or of a format that is
            not read; for single detectors, which have no map grid.
    """
    products = products_at(path, mission, layers)
    if not products:
        raise UserError(f"{path}: no {mission} product there; give its -SPECTRAL_IMAGE.TIF")
    if len(products) > 1:
        raise UserError(
            f"{path}: holds {len(products)} products, such as {products[0].name} and"
            f" {products[1].name}; give the -SPECTRAL_IMAGE.TIF of one"
        )
    product = products[0]
    level = level_in(product.name)
    if level == "L1B":
        raise UserError(
            f"{path}: {mission} L1B has no map grid (rows and columns are those of the detectors);"
            " get L2A, which has surface reflectance on a map grid"
        )
    if product.image is None:
        raise UserError(_no_image(path, product))
    if product.metadata is None:
        raise UserError(
            f"{product.image}: no {product.name}-METADATA.XML beside it, which says the wavelengths;"
            " put it there, or rename the image to have it read as a plain GeoTIFF"
        )
    return product, product.image, product.metadata


def _no_image(path: Path, product: Product) -> str:
    if product.others:
        return (
            f"{product.others[0]}: not read in this format; get the product as GeoTIFF, with its"
            f" {product.name}-SPECTRAL_IMAGE.TIF"
        )
    return f"{path}: no {product.name}-SPECTRAL_IMAGE.TIF beside it; put it there"


def open_image(path: Path) -> Source:
    """The image, as its file alone states it.

    Raises:
        UserError: for a damaged file, and a raw one without its header.
    """
    if path.suffix.lower() in _TIFF:
        return open_raster(path)
    header, data = find_pair(path)
    if header is None:
        raise UserError(f"{path}: no {path.stem}.HDR beside it; put it there")
    return open_envi(header, data)


def level_in(name: str) -> str | None:
    """L1B, L1C or L2A, where a product's name or a text says one."""
    m = re.search(r"(?<![A-Z0-9])(L1B|L1C|L2A)(?![A-Z0-9])", name.upper())
    return m.group(1) if m else None


def read_metadata(path: Path) -> Element:
    """The root of an XML file, with namespaces taken off.

    Raises:
        UserError: for a damaged file.
    """
    from xml.etree import ElementTree

    with reading(path):
        root = ElementTree.parse(small_file(path)).getroot()
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def band_values(bands: Sequence[Element], name: str, path: Path) -> np.ndarray | None:
    """One number a band, (band,), from its element of that name; None when no band has it.

    Raises:
        UserError: when only some bands have it, or it is no finite number.
    """
    texts = [band.findtext(name) for band in bands]
    if all(t is None for t in texts):
        return None
    try:
        values = np.array([float(t if t is not None else "") for t in texts])
        if not np.isfinite(values).all():
            raise ValueError("not finite")
    except ValueError as error:
        raise UserError(
            f"{path}: {name} is not a number for every band ({one_line(error, 80)}); get the file again"
        ) from error
    return values


def wavelengths_of(
    bands: Sequence[Element], names: tuple[str, str], count: int, paths: tuple[Path, Path]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Centres and widths (nm) of as many bands as the image has, each (band,); widths None where not stated.

    Args:
        bands: an element a band, in the image's order.
        names: of the elements with the centre and with the width.
        count: bands of the image.
        paths: the image and the metadata, for messages.

    Raises:
        UserError: when the metadata state other bands than the image has, or no wavelengths.
    """
    image, metadata = paths
    if len(bands) != count:
        raise UserError(
            f"{metadata}: describes {len(bands)} bands, but {image.name} has {count};"
            " give the image as it was delivered, or rename it to have it read as a plain GeoTIFF"
        )
    centres = band_values(bands, names[0], metadata)
    if centres is None:
        raise UserError(f"{metadata}: no {names[0]} in it; it may be cut, get it again")
    return centres, band_values(bands, names[1], metadata)


def scaling(
    bands: Sequence[Element], names: tuple[str, str], level: str, path: Path
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Scale and offset of `Source`, from gains and offsets: value = stored * gain + offset.

    Reflectances (L2A) without a stated gain are the stored values / 10000, as every L2A product has them; radiances
    have a gain and an offset of each band.

    Raises:
        UserError: for radiances without gains, and for a gain of 0.
    """
    gains = band_values(bands, names[0], path)
    offsets = band_values(bands, names[1], path)
    if gains is None and level != "L2A":
        raise UserError(f"{path}: no {names[0]} in it, so radiances are unknown; get it again")
    if gains is not None and not gains.all():
        band = int(np.flatnonzero(gains == 0)[0]) + 1
        raise UserError(f"{path}: {names[0]} of band {band} is 0; get the file again")
    scale = 1e4 if gains is None else _one_or_all(1 / gains)
    return scale, 0.0 if offsets is None else _one_or_all(offsets)


def _one_or_all(values: np.ndarray) -> float | np.ndarray:
    return float(values[0]) if np.all(values == values[0]) else values


def fill_values(image: Source, root: Element, default: float, path: Path) -> tuple[float, ...]:
    """Stored values of no data: what the image's tag and the metadata (backgroundValue) say, else `default`."""
    values = list(image.nodata)
    text = next((e.text for e in root.iter("backgroundValue") if e.text), None)
    if text is not None:
        try:
            values.append(float(text))
        except ValueError as error:
            raise UserError(
                f"{path}: backgroundValue '{text[:40]}' is no number; get the file again"
            ) from error
    return tuple(dict.fromkeys(values)) or (default,)


def layer(
    path: Path, image: Source, holds: Callable[[np.ndarray], np.ndarray], least: int = 1
) -> Window:
    """A quality layer as a window, (row, column) bool.

    Args:
        path: of a raster on the image's grid.
        image: the image.
        holds: (band, row, column) values -> (row, column) bool.
        least: how many bands the layer must have.

    Raises:
        UserError: for a damaged file, another grid, too few bands.
    """
    source = open_raster(path)
    if source.shape[1:] != image.shape[1:] or source.shape[0] < least:
        raise UserError(
            f"{path}: {source.shape} (bands, rows, columns) does not fit the image,"
            f" {image.shape}; put the layer of the same product there, or take it away"
        )

    def window(rows: slice, columns: slice) -> np.ndarray:
        return holds(source.read(rows, columns))

    return window


def either(first: Window | None, second: Window) -> Window:
    """Where one of two masks holds."""
    if first is None:
        return second
    one = first

    def window(rows: slice, columns: slice) -> np.ndarray:
        return np.asarray(one(rows, columns) | second(rows, columns))

    return window
