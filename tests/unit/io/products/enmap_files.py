"""A small EnMAP L2A or L1C product as the specification EN-PCV-ICD-2009-2 has it, and what is right of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

STEM = "ENMAP01-____{level}-DT0000001053_20220611T072305Z_002_V010400_20231221T134421Z"
EPSG = 32632
TRANSFORM = (30.0, 0.0, 512340.0, 0.0, -30.0, 5401230.0)
SHAPE = (7, 9)
VNIR = (450.1, 551.2, 652.3, 753.4, 854.5, 904.9, 915.0, 944.7, 985.2)
SWIR = (911.5, 931.3, 960.6, 1000.8, 1352.2, 1649.9, 2203.6)  # the fifth has no values
LAYERS = {  # the layer: key in Source.quality, stored values that mean it
    "QL_QUALITY_CLOUD": ("cloud", (1,)),
    "QL_QUALITY_CLOUDSHADOW": ("cloud_shadow", (1,)),
    "QL_QUALITY_HAZE": ("haze", (1,)),
    "QL_QUALITY_CIRRUS": ("cirrus", (1, 2, 3)),
    "QL_QUALITY_SNOW": ("snow", (1,)),
}


class Product(NamedTuple):
    folder: Path
    image: Path
    metadata: Path
    values: np.ndarray  # (band, y, x) reflectance 0 to 1, or radiance; NaN where no data
    wavelengths: np.ndarray
    fwhm: np.ndarray
    good: np.ndarray
    masked: np.ndarray  # outside of the scene
    quality: dict[str, np.ndarray]


def write(
    folder: Path,
    level: str = "L2A",
    cog: bool = False,
    form: str = "TIF",
    *,
    cube: np.ndarray | None = None,
    vnir_nm: Sequence[float] = VNIR,
    swir_nm: Sequence[float] = SWIR,
    flags: Mapping[str, np.ndarray] | None = None,
) -> Product:
    """Write the product into a folder.

    Args:
        folder: is made if need be.
        level: "L2A" or "L1C".
        cog: whether images are named as cloud-optimised ones.
        form: TIF, BSQ, BIL or BIP, the image's.
        cube: (band, y, x) reflectance in ascending order of wavelength, of L2A; NaN in all bands: outside of the scene,
            in all pixels: a band without values. None: different values everywhere.
        vnir_nm: the bands' wavelengths.
        swir_nm: the same.
        flags: with `cube`: where quality layers hold, (y, x) bool by their key in `LAYERS`; the others hold nowhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = STEM.format(level=level)
    wavelengths = np.sort([*vnir_nm, *swir_nm])
    shape = SHAPE if cube is None else cube.shape[1:]
    count, (height, width) = len(wavelengths), shape
    vnir = np.isin(wavelengths, vnir_nm)
    empty = wavelengths == SWIR[4] if cube is None else np.isnan(cube).all((1, 2))
    fwhm = np.round(6.5 + wavelengths / 1000, 3)
    background = -32768 if level == "L2A" else 0
    outside = np.zeros(shape, bool)
    if cube is None:
        stored = 1 + np.arange(count * height * width).reshape(count, height, width) * 5
        outside[:, 0] = outside[0, :3] = True
        stored[3, 5, 5] = background  # one band only
    else:
        stored = np.nan_to_num(np.round(cube * 1e4)).astype(int)
        outside = np.isnan(cube).all(0)
    stored[empty] = background
    stored[:, outside] = background
    gains = np.full(count, 1e-4) if level == "L2A" else 5e-6 * (1 + np.arange(count) / 7)
    offsets = np.zeros(count) if level == "L2A" else 0.01 * np.arange(count)
    by_band = (slice(None), None, None)
    values = np.where(stored == background, np.nan, stored * gains[by_band] + offsets[by_band])
    good = ~empty & ~(vnir & (wavelengths >= min(swir_nm)))
    tail = "_COG" if cog else ""
    image = folder / f"{stem}-SPECTRAL_IMAGE{tail}.{form}"
    _image(image, stored.astype(np.int16 if level == "L2A" else np.uint16), background)
    rng = np.random.default_rng(5)
    quality = {}
    for name, (key, meaning) in LAYERS.items():
        layer = rng.integers(0, max(meaning) + 1, shape).astype(np.uint8)
        if cube is not None:
            layer = np.where((flags or {}).get(key, False), np.uint8(1), np.zeros_like(layer))
        layer[outside] = 255
        quality[key] = np.isin(layer, meaning)
        _tiff(folder / f"{stem}-{name}{tail}.TIF", layer[None], None)
    classes = rng.integers(1, 3, shape).astype(np.uint8)
    if cube is not None:
        classes[:] = 1
    classes[outside] = 3
    quality["water"] = classes == 2
    _tiff(folder / f"{stem}-QL_QUALITY_CLASSES{tail}.TIF", classes[None], None)
    mask = np.zeros((count, *shape), np.uint8)
    mask[:, outside] = 255
    mask[2, 4, 4] = mask[count - 1, 6, 8] = 1
    mask[empty, 2, 3] = 1  # of a band that is not used
    quality["defective"] = (mask[good] == 1).any(axis=0)
    _tiff(folder / f"{stem}-QL_PIXELMASK{tail}.TIF", mask, 255)
    unread = np.full((1, *shape), 4, np.uint8)  # files of the product that are not read
    _tiff(folder / f"{stem}-QL_QUALITY_TESTFLAGS{tail}.TIF", unread, None)
    _tiff(folder / f"{stem}-QL_VNIR{tail}.TIF", np.zeros((3, *shape), np.uint8), None)
    (folder / f"{stem}-HISTORY.XML").write_text("<history/>")
    metadata = folder / f"{stem}-METADATA.XML"
    metadata.write_text(_xml(level, wavelengths, fwhm, gains, offsets, vnir, empty, background))
    return Product(folder, image, metadata, values, wavelengths, fwhm, good, outside, quality)


def _tiff(path: Path, cube: np.ndarray, nodata: float | None) -> None:
    import rasterio

    count, height, width = cube.shape
    options = {"count": count, "height": height, "width": width, "dtype": cube.dtype}
    place = {"crs": f"EPSG:{EPSG}", "transform": rasterio.Affine(*TRANSFORM)}
    with rasterio.open(path, "w", driver="GTiff", nodata=nodata, **options, **place) as raster:
        raster.write(cube)


def _image(path: Path, cube: np.ndarray, background: int) -> None:
    form = path.suffix[1:].lower()
    if form == "tif":
        return _tiff(path, cube, background)
    count, height, width = cube.shape
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[form]
    kind = {"int16": 2, "uint16": 12}[cube.dtype.name]
    path.write_bytes(
        np.ascontiguousarray(cube.transpose(axes)).astype(cube.dtype.newbyteorder("<")).tobytes()
    )
    path.with_suffix(".HDR").write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {count}\nheader offset = 0\n"
        f"file type = ENVI Standard\ndata type = {kind}\ninterleave = {form}\nbyte order = 0\n"
        f"map info = {{UTM, 1, 1, {TRANSFORM[2]}, {TRANSFORM[5]}, 30, 30, 32, North, WGS-84}}\n"
        f"data ignore value = {background}\n"
    )
    return None


def _xml(
    level: str,
    wavelengths: np.ndarray,
    fwhm: np.ndarray,
    gains: np.ndarray,
    offsets: np.ndarray,
    vnir: np.ndarray,
    empty: np.ndarray,
    background: int,
) -> str:
    def listed(which: np.ndarray) -> str:
        return ",".join(str(i + 1) for i in np.flatnonzero(which))

    bands = "".join(
        f'<bandID number="{i}"><wavelengthCenterOfBand>{w}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{f}</FWHMOfBand><GainOfBand>{g!r}</GainOfBand><OffsetOfBand>{o!r}</OffsetOfBand></bandID>\n"
        for i, (w, f, g, o) in enumerate(
            zip(wavelengths, fwhm, gains.tolist(), offsets.tolist(), strict=True), 1
        )
    )
    statistics = "".join(
        f'<bandID number="{i}"><minimum>0</minimum><maximum>9</maximum>'
        f"<mean>{-1000000 if e else 4.5}</mean><stdDeviation>{0 if e else 1.5}</stdDeviation></bandID>\n"
        for i, e in enumerate(empty, 1)
    )
    smile = "".join(
        f'<bandID number="{i}"><wavelength>{w}</wavelength></bandID>'
        for i, w in enumerate(wavelengths[vnir], 1)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<level_X xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<metadata><name>{STEM.format(level=level)}-METADATA.XML</name><comment>EnMAP {level} product</comment></metadata>
<base><level>{level}</level></base>
<specific>
<backgroundValue>{background}</backgroundValue>
<bandCharacterisation>
{bands}</bandCharacterisation>
<vnirProductQuality><expectedChannelsList>{listed(vnir)}</expectedChannelsList></vnirProductQuality>
<swirProductQuality><expectedChannelsList>{listed(~vnir)}</expectedChannelsList></swirProductQuality>
</specific>
<product>
<smileCorrection><VNIR>{smile}</VNIR></smileCorrection>
<bandStatistics>
{statistics}</bandStatistics>
</product>
</level_X>
"""
