"""What the classifier and the mixtures see: stretched bands and principal components."""

from pathlib import Path
from typing import Literal

import numpy as np

from special_steps.cli import run
from special_steps.spectral import joint_percentiles, stretch
from special_steps.store import TILE, new_store, open_store, write_array


def principal_components(bands: np.ndarray, nodata: np.ndarray, count: int) -> np.ndarray:
    """Leading principal components of the valid pixels' spectra.

    Args:
        bands: (band, y, x) float32.
        nodata: (y, x) bool; these pixels take no part and get 0.
        count: number of components; fewer where there are fewer bands or pixels.

    Returns:
        (component, y, x) float32, zero mean over valid pixels.
    """
    valid = ~nodata
    blocks = [slice(y, y + 32) for y in range(0, len(nodata), 32)]  # rows

    def spectra(rows: slice) -> np.ndarray:
        """(pixel, band) float64, for exact sums; a few rows at a time to save memory."""
        return bands[:, rows][:, valid[rows]].T.astype(np.float64)

    pixels = int(valid.sum())
    mean = sum(spectra(rows).sum(0) for rows in blocks) / pixels
    scatter = np.zeros((len(bands), len(bands)))
    for rows in blocks:
        centred = spectra(rows) - mean
        scatter += centred.T @ centred
    count = min(count, pixels, len(bands))
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :count]
    # an axis has no sign of its own: its largest weight is positive, on every machine
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(count)])
    out = np.zeros((count, *nodata.shape), np.float32)
    for rows in blocks:
        out[:, rows][:, valid[rows]] = ((spectra(rows) - mean) @ axes).T
    return out


def features(
    *,
    source: Path,
    out: Path,
    input: Literal["hsi", "rgb"],
    percentiles: list[float],
    components: int,
) -> None:
    """Prepare the classifier's input.

    Args:
        source: the cube's store for `hsi`, the RGB store for `rgb`.
        out: store to write: `features` (band, y, x) in [0, 1] and `components`.
        input: all good bands, stretched jointly, or the RGB image as it is.
        percentiles: percentiles over all good bands that become 0 and 1.
        components: number of principal components.
    """
    if input == "hsi":
        store = open_store(source, reflectance=("band", "y", "x"), nodata=("y", "x"))
        nodata = store["nodata"][:]
        good = np.flatnonzero(store.attrs["good_bands"])
        bands = np.empty((len(good), *nodata.shape), np.float32)
        for y in range(0, len(nodata), TILE):
            bands[:, y : y + TILE] = store["reflectance"][:, y : y + TILE][good]
        stretch(bands, joint_percentiles(bands[:, ~nodata], percentiles))
        bands[:, nodata] = 0
    else:
        store = open_store(source, rgb=("band", "y", "x"), nodata=("y", "x"))
        nodata, bands = store["nodata"][:], store["rgb"][:]

    with new_store(
        out,
        step="features",
        settings={"input": input, "percentiles": percentiles, "components": components},
        inputs=[source],
    ) as group:
        write_array(group, "features", bands, ("band", "y", "x"))
        scores = principal_components(bands, nodata, components)
        write_array(group, "components", scores, ("component", "y", "x"))
        write_array(group, "nodata", nodata, ("y", "x"))


if __name__ == "__main__":
    run(features)
