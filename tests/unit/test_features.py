"""The classifier's input: joint stretch, principal components, masks, memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from defaults import INGEST
from stores import make_cube, make_rgb

from special_steps import features as module
from special_steps.core.store import TILE, open_store
from special_steps.features import features
from special_steps.features import principal_components as component_rows
from special_steps.ingest import ingest

ROOT = Path(module.__file__).resolve().parent.parent


def made(tmp_path, source, input="hsi", percentiles=(0.0, 100.0), components=3):
    out = tmp_path / "features.zarr"
    features(
        source=source, out=out, input=input, percentiles=list(percentiles), components=components
    )
    found = open_store(
        out, features=("band", "y", "x"), components=("component", "y", "x"), nodata=("y", "x")
    )
    return found["features"][:], found["components"][:], found["nodata"][:]


def spectra(bands=8, height=12, width=15, seed=0):
    """Three materials in changing shares, and noise: components of clearly different strength."""
    rng = np.random.default_rng(seed)
    ends = rng.random((bands, 3)) * [4, 2, 1]
    mixed = np.einsum("bm,myx->byx", ends, rng.dirichlet([1, 1, 1], (height, width)).transpose(2, 0, 1))  # fmt: skip
    return (mixed + 0.01 * rng.standard_normal(mixed.shape)).astype("f4")


def principal_components(bands, nodata, count):
    return np.concatenate(list(component_rows(lambda rows: bands[:, rows], nodata, count)), 1)


def masked(height=12, width=15):
    nodata = np.zeros((height, width), bool)
    nodata[:3] = True
    nodata[5, 7:9] = True
    return nodata


# --- stretched bands ------------------------------------------------------------------------------


def test_the_stretch_is_joint_over_good_bands(tmp_path):
    cube = np.stack([np.full((2, 2), v, "f4") for v in (1, 100, 2, 5)])
    store = make_cube(tmp_path / "c.zarr", cube, [400, 500, 600, 700], [1, 0, 1, 1])
    bands, _, _ = made(tmp_path, store)
    np.testing.assert_allclose(bands[:, 0, 0], [0, 0.25, 1], atol=1e-6)  # 1, 2, 5; 100 is bad


def test_percentiles_as_numpy_has_them(tmp_path):
    cube = spectra()
    bands, _, _ = made(tmp_path, make_cube(tmp_path / "c.zarr", cube, range(8)), percentiles=(2, 98))  # fmt: skip
    low, high = np.percentile(cube, [2, 98])
    np.testing.assert_allclose(bands, np.clip((cube - low) / (high - low), 0, 1), atol=1e-5)
    assert 0.015 < (bands == 1).mean() < 0.025


def test_masked_pixels_are_0_and_not_counted(tmp_path):
    nodata, cube = masked(), spectra()
    wild = cube.copy()
    wild[:, nodata] = 1e6
    bands, scores, mask = made(
        tmp_path, make_cube(tmp_path / "a.zarr", wild, range(8), nodata=nodata)
    )
    np.testing.assert_array_equal(mask, nodata)
    assert (bands[:, nodata] == 0).all()
    assert (scores[:, nodata] == 0).all()
    cube[:, nodata] = 0.1
    again = made(tmp_path, make_cube(tmp_path / "b.zarr", cube, range(8), nodata=nodata))
    np.testing.assert_array_equal(again[0], bands)
    np.testing.assert_array_equal(again[1], scores)


def test_a_constant_scene(tmp_path):
    bands, scores, _ = made(tmp_path, make_cube(tmp_path / "c.zarr", np.ones((4, 3, 3)), range(4)))
    assert (bands == 0.5).all()
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def test_rgb_is_taken_as_it_is(tmp_path):
    image = np.random.default_rng(0).random((3, 12, 15), np.float32)
    nodata = masked()
    image[:, nodata] = 0
    bands, scores, mask = made(tmp_path, make_rgb(tmp_path / "r.zarr", nodata, image), "rgb", components=5)  # fmt: skip
    np.testing.assert_array_equal(bands, image)
    np.testing.assert_array_equal(mask, nodata)
    assert scores.shape == (3, 12, 15)


def test_rows_beyond_one_tile(tmp_path):
    cube = spectra(4, TILE + 40, 3)
    bands, _, _ = made(tmp_path, make_cube(tmp_path / "c.zarr", cube, range(4), [1, 0, 1, 1]))
    good = cube[[0, 2, 3]]
    np.testing.assert_allclose(bands, (good - good.min()) / np.ptp(good), atol=1e-6)


# --- principal components -------------------------------------------------------------------------


def test_components_equal_numpys_eigenvectors_up_to_sign():
    bands, nodata = spectra(), masked()
    pixels = bands[:, ~nodata].T.astype(float)
    values, axes = np.linalg.eigh(np.cov(pixels.T))
    assert values[-1] / values[-2] > 1.2  # else the axes are not unique
    wanted = ((pixels - pixels.mean(0)) @ axes[:, ::-1][:, :3]).T
    found = principal_components(bands, nodata, 3)
    assert found.dtype == np.float32
    for mine, theirs in zip(found[:, ~nodata], wanted, strict=True):
        theirs = theirs * np.sign((mine * theirs).sum())
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_components_equal_scikit_learns():
    sklearn = pytest.importorskip("sklearn.decomposition")
    bands, nodata = spectra(seed=3), masked()
    theirs = sklearn.PCA(4).fit_transform(bands[:, ~nodata].T.astype(float)).T
    mine = principal_components(bands, nodata, 4)[:, ~nodata]
    np.testing.assert_allclose(np.abs(mine), np.abs(theirs), atol=1e-5)


def test_components_have_zero_mean_falling_variance_and_no_correlation():
    bands, nodata = spectra(), masked()
    found = principal_components(bands, nodata, 8)[:, ~nodata]
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    covariance = np.cov(found)
    variances = np.diag(covariance)
    assert (np.diff(variances) < 0).all()
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-6)
    np.testing.assert_allclose(variances.sum(), bands[:, ~nodata].var(1, ddof=1).sum(), rtol=1e-4)


def test_a_large_offset_does_not_spoil_the_components():
    """float32 sums of large numbers would."""
    bands, nodata = spectra(), masked()
    plain = principal_components(bands, nodata, 2)
    moved = principal_components(bands + np.float32(64), nodata, 2)
    np.testing.assert_allclose(np.abs(moved), np.abs(plain), atol=1e-4)


def test_signs_do_not_depend_on_the_order_of_pixels():
    bands, nodata = spectra(), masked()
    found = principal_components(bands, nodata, 3)
    turned = principal_components(bands[:, ::-1, ::-1], nodata[::-1, ::-1], 3)
    np.testing.assert_allclose(turned[:, ::-1, ::-1], found, atol=1e-5)


def test_no_more_components_than_bands_or_pixels():
    bands = spectra(4, 5, 5)
    assert principal_components(bands, np.zeros((5, 5), bool), 9).shape == (4, 5, 5)
    nodata = np.ones((5, 5), bool)
    nodata[2, 2] = nodata[3, 3] = False
    assert principal_components(bands, nodata, 9).shape == (2, 5, 5)


# --- a real scene, and memory ---------------------------------------------------------------------


def test_muufl(tmp_path, shared):
    """90 x 90 x 64: five classes lie apart in the components."""
    ingest(
        cube=shared / "data" / "scenes" / "muufl" / "muufl_90x90.mat",
        out=tmp_path / "cube.zarr",
        **INGEST | {"variable": "Y", "wavelengths": {"first": 375, "last": 1050}},
    )
    bands, scores, _ = made(tmp_path, tmp_path / "cube.zarr", percentiles=(0.01, 99.99), components=5)  # fmt: skip
    assert bands.shape == (64, 90, 90)
    assert bands.min() == 0
    assert bands.max() == 1
    total = bands.reshape(64, -1).var(1).sum()
    assert scores.reshape(5, -1).var(1).sum() > 0.97 * total
    truth = np.load(shared / "pseudo" / "muufl_gt.npz")["gt"]
    middle = np.stack([scores[:, truth == k].mean(1) for k in range(1, 6)])
    nearest = np.linalg.norm(scores[:, None] - middle.T[:, :, None, None], axis=0).argmin(0) + 1
    assert (nearest == truth).mean() > 0.6  # chance: 0.2; also shows that axes were not mixed up


PEAK = """
import sys
from pathlib import Path
from special_steps.features import features
def kib(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1])
before = kib("VmRSS")
features(source=Path(sys.argv[1]), out=Path(sys.argv[2]), input="hsi", percentiles=[0.01, 99.99], components=5)
print(kib("VmHWM") - before)
"""


def peak_of(tmp_path, shape):
    """Peak memory of the step and size of the cube (band, y, x), in bytes."""
    cube = np.random.default_rng(0).random(shape, np.float32)
    source = make_cube(tmp_path / f"{shape[1]}.zarr", cube, range(shape[0]))
    words = [sys.executable, "-c", PEAK, source, tmp_path / "f.zarr"]
    one = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as Snakemake sets it for the rule
    done = subprocess.run(words, cwd=ROOT, env=one, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024, cube.nbytes


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="needs Linux's /proc"
)


@needs_proc
def test_memory_stays_under_6_cubes(tmp_path):
    peak, size = peak_of(tmp_path, (100, 400, 400))
    print(f"peak memory of features: {peak / size:.1f} x the cube")
    assert 1 < peak / size < 6


@needs_proc
def test_memory_hardly_grows_with_the_scene(tmp_path):
    """Of what a scene is higher, less than half comes on top (allocators keep some)."""
    (low, small), (high, large) = (peak_of(tmp_path, (100, n * TILE, 160)) for n in (3, 12))
    assert high - low < 0.5 * (large - small)
    assert high < 1.5 * large
