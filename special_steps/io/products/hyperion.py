"""EO-1 Hyperion L1T and L1Gst (radiance at the sensor, on a map grid), a GeoTIFF for each band.

Sources: the README of USGS' EO-1 Hyperion products (January 2013) for files and levels; EO-1 User Guide v2.3 for the
scaling; USGS' table of Hyperion's spectral coverage (doi:10.5066/P9JXHMO2), as in Earth Engine's EO1/HYPERION and in
PyGMI's reader, for centres and widths.

- Files: SCENE_B###_L1T.TIF (or _L1GST.TIF), ### from 001 to 242, int16, and SCENE_MTL_L1T.TXT.
- Values: radiances in W/m2/sr/um, times SCALING_FACTOR_VNIR (40; bands 1 to 70) or SCALING_FACTOR_SWIR (80; 71 to 242)
  of the metadata.
- Bands 1 to 7, 58 to 76 and 225 to 242 are not calibrated, and all 0 where they are delivered. VNIR ends at band 57
  (925 nm) and SWIR begins at band 77 (912 nm): the usual 196 unique bands leave 77 and 78 out.
- No data: 0 in every band, around the strip that was imaged.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from special_steps.core.errors import UserError
from special_steps.io.products.dlr import names_in
from special_steps.io.raster import open_raster, stack
from special_steps.io.record import Source, reading, small_file

_BAND = re.compile(
    r"(?P<scene>EO1H\w+)_B(?P<number>\d{3})_(?P<level>L1T|L1GST)\.TIFF?", re.IGNORECASE
)
_METADATA = re.compile(r"(?P<scene>EO1H\w+)_MTL_(?P<level>L1T|L1GST)\.TXT", re.IGNORECASE)
_SENSOR_GRID = re.compile(r"EO1H\w+\.L1R", re.IGNORECASE)
_LEVELS = {"L1T": "L1T", "L1GST": "L1Gst"}

_LAST_VNIR = 70
_CALIBRATED = (*range(8, 58), *range(77, 225))
_OVERLAP = (77, 78)  # SWIR bands below VNIR's last

# centres in nm of bands 1 to 242, from USGS' table
_CENTRES = """
355.59 365.76 375.94 386.11 396.29 406.46 416.64 426.82 436.99 447.17 457.34 467.52 477.69 487.87 498.04 508.22
518.39 528.57 538.74 548.92 559.09 569.27 579.45 589.62 599.80 609.97 620.15 630.32 640.50 650.67 660.85 671.02
681.20 691.37 701.55 711.72 721.90 732.07 742.25 752.43 762.60 772.78 782.95 793.13 803.30 813.48 823.65 833.83
844.00 854.18 864.35 874.53 884.70 894.88 905.05 915.23 925.41 935.58 945.76 955.93 966.11 976.28 986.46 996.63
1006.81 1016.98 1027.16 1037.33 1047.51 1057.68
851.92 862.01 872.10 882.19 892.28 902.36 912.45 922.54 932.64 942.73 952.82 962.91 972.99 983.08 993.17 1003.30
1013.30 1023.40 1033.49 1043.59 1053.69 1063.79 1073.89 1083.99 1094.09 1104.19 1114.19 1124.28 1134.38 1144.48
1154.58 1164.68 1174.77 1184.87 1194.97 1205.07 1215.17 1225.17 1235.27 1245.36 1255.46 1265.56 1275.66 1285.76
1295.86 1305.96 1316.05 1326.05 1336.15 1346.25 1356.35 1366.45 1376.55 1386.65 1396.74 1406.84 1416.94 1426.94
1437.04 1447.14 1457.23 1467.33 1477.43 1487.53 1497.63 1507.73 1517.83 1527.92 1537.92 1548.02 1558.12 1568.22
1578.32 1588.42 1598.51 1608.61 1618.71 1628.81 1638.81 1648.90 1659.00 1669.10 1679.20 1689.30 1699.40 1709.50
1719.60 1729.70 1739.70 1749.79 1759.89 1769.99 1780.09 1790.19 1800.29 1810.38 1820.48 1830.58 1840.58 1850.68
1860.78 1870.87 1880.98 1891.07 1901.17 1911.27 1921.37 1931.47 1941.57 1951.57 1961.66 1971.76 1981.86 1991.96
2002.06 2012.15 2022.25 2032.35 2042.45 2052.45 2062.55 2072.65 2082.75 2092.84 2102.94 2113.04 2123.14 2133.24
2143.34 2153.34 2163.43 2173.53 2183.63 2193.73 2203.83 2213.93 2224.03 2234.12 2244.22 2254.22 2264.32 2274.42
2284.52 2294.61 2304.71 2314.81 2324.91 2335.01 2345.11 2355.21 2365.20 2375.30 2385.40 2395.50 2405.60 2415.70
2425.80 2435.89 2445.99 2456.09 2466.09 2476.19 2486.29 2496.39 2506.48 2516.59 2526.68 2536.78 2546.88 2556.98
2566.98 2577.08
"""
# widths (full, at half maximum) in nm of bands 1 to 242, from USGS' table
_WIDTHS = """
11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3871 11.3784
11.3538 11.3133 11.2580 11.1907 11.1119 11.0245 10.9321 10.8368 10.7407 10.6482 10.5607 10.4823 10.4147 10.3595
10.3188 10.2942 10.2856 10.2980 10.3349 10.3909 10.4592 10.5322 10.6004 10.6562 10.6933 10.7058 10.7276 10.7907
10.8833 10.9938 11.1044 11.1980 11.2600 11.2824 11.2822 11.2816 11.2809 11.2797 11.2782 11.2771 11.2765 11.2756
11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754 11.2754
11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457 11.0457
11.0457 11.0457 11.0457 11.0451 11.0423 11.0372 11.0302 11.0218 11.0122 11.0013 10.9871 10.9732 10.9572 10.9418
10.9248 10.9065 10.8884 10.8696 10.8513 10.8335 10.8154 10.7979 10.7822 10.7663 10.7520 10.7385 10.7270 10.7174
10.7091 10.7022 10.6970 10.6946 10.6937 10.6949 10.6996 10.7058 10.7163 10.7283 10.7437 10.7612 10.7807 10.8034
10.8267 10.8534 10.8818 10.9110 10.9422 10.9743 11.0074 11.0414 11.0759 11.1108 11.1461 11.1811 11.2156 11.2496
11.2826 11.3146 11.3460 11.3753 11.4037 11.4302 11.4538 11.4760 11.4958 11.5133 11.5286 11.5404 11.5505 11.5580
11.5621 11.5634 11.5617 11.5563 11.5477 11.5346 11.5193 11.5002 11.4789 11.4548 11.4279 11.3994 11.3688 11.3366
11.3036 11.2696 11.2363 11.2007 11.1666 11.1333 11.1018 11.0714 11.0424 11.0155 10.9912 10.9698 10.9508 10.9355
10.9230 10.9139 10.9083 10.9069 10.9057 10.9013 10.8951 10.8854 10.8740 10.8591 10.8429 10.8242 10.8039 10.7820
10.7592 10.7342 10.7092 10.6834 10.6572 10.6312 10.6052 10.5803 10.5560 10.5328 10.5101 10.4904 10.4722 10.4552
10.4408 10.4285 10.4197 10.4129 10.4088 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077
10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077 10.4077
10.4077 10.4077 10.4077 10.4077
"""
CENTRES = np.array(_CENTRES.split(), np.float64)  # (242,) nm
WIDTHS = np.array(_WIDTHS.split(), np.float64)  # (242,) nm


def files_of(path: Path) -> list[Path]:
    """All files of the Hyperion product that a folder, a band or a _MTL_L1T.TXT belongs to; [] for anything else.

    The metadata are first, then the calibrated bands by their number.
    """
    if _SENSOR_GRID.fullmatch(path.name) and path.is_file():
        return [path]
    return [file for files in _scenes(path).values() for file in files.values()]


def open_product(path: Path) -> Source:
    """Open a Hyperion L1T or L1Gst product: its calibrated bands, the two SWIR ones below VNIR's end not good.

    Args:
        path: the folder, one of the bands or the _MTL_L1T.TXT.

    Raises:
        UserError: when files are missing, damaged or do not fit each other; for L1R, which has no map grid.
    """
    if _SENSOR_GRID.fullmatch(path.name):
        raise UserError(
            f"{path}: Hyperion L1R has no map grid (rows and columns are those of the detector);"
            " get the L1T product of the scene"
        )
    scenes = _scenes(path)
    if len(scenes) != 1:
        shown = ", such as " + " and ".join(name for name, _ in list(scenes)[:2]) if scenes else ""
        raise UserError(
            f"{path}: holds {len(scenes)} Hyperion products{shown}; give the _MTL_L1T.TXT of one"
        )
    (scene, level), files = next(iter(scenes.items()))
    metadata = files.pop(0, None)
    if not files:
        raise UserError(f"{path}: no {scene}_B###_{level}.TIF beside it; put the bands there")
    if metadata is None:
        raise UserError(
            f"{next(iter(files.values()))}: no {scene}_MTL_{level}.TXT beside it, which says the"
            " scaling of the values; put it there"
        )
    numbers = np.array(list(files))
    bands = [open_raster(file) for file in files.values()]
    for band in bands[1:]:
        if band.shape != bands[0].shape or band.transform != bands[0].transform:
            raise UserError(
                f"{band.files[0]}: not on the grid of {bands[0].files[0]}; get the band again"
            )
    cube = stack(bands)

    def outside(rows: slice, columns: slice) -> np.ndarray:
        # a single 0 is a radiance, such as in the water vapour bands
        return np.asarray((cube.read(rows, columns) == 0).all(axis=0))

    factors = _scaling(metadata)
    return replace(
        cube,
        files=list(dict.fromkeys([metadata, *cube.files])),
        wavelengths=CENTRES[numbers - 1],
        fwhm=WIDTHS[numbers - 1],
        good_bands=~np.isin(numbers, _OVERLAP),
        scale=np.where(numbers <= _LAST_VNIR, *factors),
        offset=0.0,
        nodata=(),
        masked=outside,
        doubts={},
        notes=(*cube.notes, *_notes(path, _LEVELS[level], numbers)),
        photometric="",
        kind=f"Hyperion {_LEVELS[level]}",
    )


def _notes(path: Path, level: str, numbers: np.ndarray) -> tuple[str, ...]:
    missing = sorted(set(_CALIBRATED) - set(numbers.tolist()))
    note = (
        f"{path}: Hyperion {level} holds radiances at the sensor (W/m2/sr/um), not reflectances;"
        " for reflectances correct it for the atmosphere first"
    )
    if not missing:
        return (note,)
    shown = ", ".join(str(n) for n in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return note, f"{path}: {len(missing)} of 198 calibrated bands are not there: {shown}"


def _scenes(path: Path) -> dict[tuple[str, str], dict[int, Path]]:
    """Files by band number, 0 for the metadata, of each scene and level in a folder, or of those of a file."""
    given = _BAND.fullmatch(path.name) or _METADATA.fullmatch(path.name)
    folder = path if path.is_dir() else path.parent if given and path.is_file() else None
    if folder is None:
        return {}
    scenes: dict[tuple[str, str], dict[int, Path]] = {}
    for file in names_in(folder):
        found = _BAND.fullmatch(file.name) or _METADATA.fullmatch(file.name)
        if found is None:
            continue
        number = int(found.groupdict().get("number", 0))
        if number == 0 or number in _CALIBRATED:
            scenes.setdefault(_of(found), {})[number] = file
    if folder != path and given:
        scenes = {key: files for key, files in scenes.items() if key == _of(given)}
    return {key: dict(sorted(files.items())) for key, files in scenes.items()}


def _of(found: re.Match[str]) -> tuple[str, str]:
    """Scene and level of a file."""
    return found["scene"].upper(), found["level"].upper()


def _scaling(path: Path) -> tuple[float, float]:
    """What VNIR's and SWIR's values are divided by.

    Raises:
        UserError: when the metadata do not say.
    """
    with reading(path):
        text = small_file(path).read_text(encoding="utf-8", errors="replace")
    factors = []
    for name in ("SCALING_FACTOR_VNIR", "SCALING_FACTOR_SWIR"):
        m = re.search(rf"^\s*{name}\s*=\s*\"?([\d.eE+-]+)", text, re.MULTILINE)
        try:
            factor = float(m.group(1)) if m else 0.0
        except ValueError:
            factor = 0.0
        if not factor > 0:
            raise UserError(f"{path}: no {name} above 0 in it; it may be cut, get it again")
        factors.append(factor)
    return factors[0], factors[1]
