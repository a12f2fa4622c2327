"""EnMAP L2A (surface reflectance) and L1C (radiance at the sensor), orthorectified.

Sources: EnMAP HSI Level 1/Level 2 product specification (EN-PCV-ICD-2009-2), and the public readers of ESA SNAP
(opttbx, eu.esa.opt.dataio.enmap), the EnMAP-Box (importenmapl2aalgorithm) and xarray-enmap.

- Bands: `bandCharacterisation/bandID`, whose number counts the image's bands from 1: wavelengthCenterOfBand and
  FWHMOfBand in nm; GainOfBand and OffsetOfBand, value = stored * gain + offset. L2A: int16, gain 0.0001, so
  reflectances are 0 to 1. L1C: uint16, a gain and an offset of each band, W/m2/sr/nm.
- No data: `specific/backgroundValue` (-32768 in L2A), also the image's tag; it may hold for whole bands (water vapour).
- Detectors: `vnirProductQuality/expectedChannelsList` and `swirProductQuality/...` list the bands of each.
- Quality layers: 1 holds, 0 not, 255 outside; cirrus 1 thin, 2 medium, 3 thick; classes 1 land, 2 water, 3 outside;
  pixel mask, of each band, 1 defective. QL_QUALITY_TESTFLAGS (how reliable the pixel is as a whole) is not read.
"""

from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from special_steps.core.errors import UserError, one_line
from special_steps.io.products import dlr
from special_steps.io.record import Source, Window

_FLAGS = {  # Source.quality's name: the layer, and its values that mean it
    "cloud": ("QL_QUALITY_CLOUD", (1,)),
    "cloud_shadow": ("QL_QUALITY_CLOUDSHADOW", (1,)),
    "haze": ("QL_QUALITY_HAZE", (1,)),
    "cirrus": ("QL_QUALITY_CIRRUS", (1, 2, 3)),
    "snow": ("QL_QUALITY_SNOW", (1,)),
    "water": ("QL_QUALITY_CLASSES", (2,)),
}
_OUTSIDE = 3  # in QL_QUALITY_CLASSES
_PIXELMASK = "QL_PIXELMASK"
_LAYERS = (*(name for name, _ in _FLAGS.values()), _PIXELMASK)
_BACKGROUND = {"L2A": -32768.0, "L1C": 0.0}
_NO_STATISTICS = -1e6  # the mean of a band without any value


def files_of(path: Path) -> list[Path]:
    """All files of the EnMAP product that a folder, an image or a METADATA.XML belongs to; [] for anything else."""
    return [f for p in dlr.products_at(path, "ENMAP", _LAYERS) for f in p.files]


def open_product(path: Path) -> Source:
    """Open an EnMAP L2A or L1C product.

    Where the detectors overlap (about 900 to 1000 nm) the bands of VNIR are not good, so that the spectrum does not
    jump between the two; that SWIR stays is the EnMAP-Box's default too. Bands that the metadata do not expect, that
    have no wavelength or no value at all are not good either.

    Args:
        path: the folder, the image or the METADATA.XML.

    Raises:
        UserError: when a file is missing, damaged or does not fit the others; for L1B, which has no map grid.
    """
    product, image_path, metadata = dlr.the_product(path, "ENMAP", _LAYERS)
    root = dlr.read_metadata(metadata)
    level = dlr.level_in(product.name) or _level(root, metadata)
    bands = dlr.bands_of(
        root, "bandID", lambda b: b.get("number", "0"), "bandID's number", metadata
    )
    image = dlr.open_image(image_path)
    wavelengths, fwhm = dlr.wavelengths_of(
        bands, ("wavelengthCenterOfBand", "FWHMOfBand"), image.shape[0], (image_path, metadata)
    )
    good = _good(root, wavelengths, metadata)
    scale, offset = dlr.scaling(bands, ("GainOfBand", "OffsetOfBand"), level, metadata)
    quality, outside = _quality(product, image, good)
    radiance = (
        f"{image_path}: EnMAP L1C holds radiances at the sensor (W/m2/sr/nm), not reflectances;"
        " for reflectances give the L2A product",
    )
    return replace(
        image,
        files=list(dict.fromkeys([*image.files, *product.files])),
        wavelengths=wavelengths,
        fwhm=fwhm,
        good_bands=good,
        scale=scale,
        offset=offset,
        nodata=dlr.fill_values(image, root, _BACKGROUND[level], metadata),
        masked=image.masked if outside is None else dlr.either(image.masked, outside),
        quality=quality,
        doubts={},
        notes=image.notes if level == "L2A" else (*image.notes, *radiance),
        photometric="",
        kind=f"EnMAP {level}",
    )


def _level(root: Element, path: Path) -> str:
    """The level that the metadata state, for images whose names do not."""
    texts = (e.text or "" for name in ("level", "name", "comment") for e in root.iter(name))
    level = next(filter(None, map(dlr.level_in, texts)), None)
    if level not in _BACKGROUND:
        raise UserError(
            f"{path}: neither its name nor its content says L1C or L2A; give it the name it was"
            " delivered with, such as ENMAP01-____L2A-DT...-METADATA.XML"
        )
    return level


def _good(root: Element, wavelengths: np.ndarray, path: Path) -> np.ndarray:
    """Which bands hold values, and are not the other detector's, (band,) bool."""
    vnir, swir = (_channels(root, name, len(wavelengths), path) for name in ("vnir", "swir"))
    good = wavelengths > 0
    for band in root.iterfind(".//bandStatistics/bandID"):
        number, mean = band.get("number", ""), band.findtext("mean", "")
        if number.isdigit() and 0 < int(number) <= len(good) and _number(mean) <= _NO_STATISTICS:
            good[int(number) - 1] = False
    if vnir is not None and swir is not None:
        good &= vnir | swir
    else:  # all of one detector, then all of the other
        back = np.flatnonzero(np.diff(wavelengths) < 0)
        if len(back) != 1:
            return good
        vnir = np.arange(len(good)) <= back[0]
        swir = ~vnir
    if (good & swir).any():
        good &= ~(vnir & (wavelengths >= wavelengths[good & swir].min()))
    return good


def _channels(root: Element, detector: str, count: int, path: Path) -> np.ndarray | None:
    """Bands of a detector, (band,) bool; None where the metadata do not list them."""
    text = root.findtext(f".//{detector}ProductQuality/expectedChannelsList")
    if not text or not text.strip():
        return None
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"{path}: expectedChannelsList of {detector.upper()} is no list of numbers ({one_line(error, 80)});"
            " get the file again"
        ) from error
    return np.isin(np.arange(1, count + 1), numbers)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _quality(
    product: dlr.Product, image: Source, good: np.ndarray
) -> tuple[dict[str, Window], Window | None]:
    """Quality layers by their name in `Source`, and where pixels are outside of the scene."""

    def among(values: tuple[int, ...], name: str) -> Window:
        return dlr.layer(product.layers[name], image, lambda v: np.isin(v[0], values))

    def defective(mask: np.ndarray) -> np.ndarray:
        used = mask if len(mask) != len(good) else mask[good]
        return np.asarray((used == 1).any(axis=0))

    quality = {
        key: among(values, name) for key, (name, values) in _FLAGS.items() if name in product.layers
    }
    if _PIXELMASK in product.layers:
        quality["defective"] = dlr.layer(product.layers[_PIXELMASK], image, defective)
    classes = _FLAGS["water"][0]
    return quality, among((_OUTSIDE,), classes) if classes in product.layers else None
