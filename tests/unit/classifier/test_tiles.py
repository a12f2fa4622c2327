"""A scene in tiles: where they lie, what is read, and how predictions are blended."""

import numpy as np
import pytest
import torch

from special_steps.classifier import tiles
from special_steps.classifier.sampling import class_balanced_sampler
from special_steps.core.store import new_store, open_store, write_array


def tiled(features, tile_side):
    """A scene that is read in parts, and what was read."""
    read = []

    def part(tile):
        read.append(tile)
        return features[:, :, *tile]

    nodata = np.zeros(features.shape[2:], bool)
    return tiles.Scene(part, features.shape[1], nodata, tile_side), read


@pytest.mark.parametrize("shape", [(40, 70), (9, 70), (33, 32)])
def test_tiles_lie_in_the_scene_around_sampled_pixels(shape):
    scene, _ = tiled(torch.zeros(1, 1, *shape), 16)
    labels = np.zeros(shape, np.uint8)
    labels[2, 3], labels[-1, -1] = 1, 2  # far apart: a rare and a common class are met alike
    labels[5:9, 20:32] = 1
    sampler = class_balanced_sampler(labels, np.ones(shape, np.float32), 50)
    rng = np.random.default_rng(0)
    corner = 0
    for _ in range(200):
        tile = tiles.random_tile(scene, sampler, rng)
        sides = [s.stop - s.start for s in tile]
        assert sides == [min(16, n) for n in shape]
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(tile, shape, strict=True))
        pixels, classes = sampler(rng, tile)
        np.testing.assert_array_equal(labels[tile].ravel()[pixels], classes + 1)
        corner += labels[tile][-1, -1] == 2
    assert 60 < corner < 140


def test_a_scene_that_fits_is_one_tile():
    scene, _ = tiled(torch.zeros(1, 1, 40, 70), 70)
    assert scene.is_one_tile
    tile = tiles.random_tile(scene, lambda *_: pytest.fail("sampled"), np.random.default_rng(0))
    assert tile == scene.extent == (slice(0, 40), slice(0, 70))


@pytest.mark.parametrize("tile", [(slice(1, 4), slice(3, 6)), (slice(0, 6), slice(0, 9))])
def test_pixels_in_a_tile(tile):
    image = np.arange(6 * 9).reshape(6, 9)
    pixels = np.array([0, 12, 13, 30, 53])
    mask, places = tiles.pixels_in_tile(pixels, tile, image.shape)
    np.testing.assert_array_equal(image[tile].ravel()[places], pixels[mask])
    np.testing.assert_array_equal(mask, np.isin(pixels, image[tile]))


@pytest.mark.parametrize("shape", [(40, 70), (9, 70), (17, 16)])
def test_predicted_tiles_are_blended_without_seams(monkeypatch, shape):
    """A network that copies its input gives the scene back; one that marks edges shows no seam."""
    features = torch.rand(1, 2, *shape)
    scene, read = tiled(features, 16)
    monkeypatch.setattr(tiles, "predict", lambda model, part: part.numpy())
    found = tiles.predict_scene(None, scene)
    np.testing.assert_allclose(found, features[0].numpy(), atol=1e-6)
    assert all(s.stop - s.start <= 16 for tile in read for s in tile)

    def edges(model, part):
        out = np.zeros(part.shape, np.float32)
        out[:, :, [0, -1]] = 1
        return out

    monkeypatch.setattr(tiles, "predict", edges)
    if shape[1] > 16:
        assert tiles.predict_scene(None, scene)[:, :, 1:-1].max() < 0.25


def test_predicted_tiles_overlap_by_a_quarter_and_the_last_is_shifted_back(monkeypatch):
    scene, read = tiled(torch.rand(1, 2, 60, 32), 32)
    monkeypatch.setattr(tiles, "predict", lambda model, part: part.numpy())
    tiles.predict_scene(None, scene)
    assert [(rows.start, columns.start) for rows, columns in read] == [(0, 0), (24, 0), (28, 0)]


def test_tiles_fit_into_memory():
    assert tiles.largest_tile_side(102, (1096, 715)) == 1096  # Pavia Centre is seen whole
    assert tiles.largest_tile_side(51, (1973, 3975)) < 1100  # AeroRIT is not
    for bands in (10, 100, 400):
        side = tiles.largest_tile_side(bands, (10_000, 10_000))
        assert 400 < side < 1100
        assert tiles.largest_tile_side(bands, (side, side)) == side


def test_a_large_scene_stays_on_disk(tmp_path):
    features = np.random.default_rng(0).random((3, 20, 30), np.float32)
    with new_store(tmp_path / "f.zarr", step="test", settings={}, inputs=[]) as group:
        write_array(group, "features", features, ("band", "y", "x"))
        write_array(group, "nodata", np.zeros((20, 30), bool), ("y", "x"))
    store = open_store(tmp_path / "f.zarr")
    cpu = torch.device("cpu")
    small = tiles.open_scene(store, None, cpu)
    assert small.is_one_tile
    np.testing.assert_array_equal(small.read(small.extent)[0], features)
    large = tiles.open_scene(store, 16, cpu)
    assert not large.is_one_tile
    tile = (slice(2, 18), slice(5, 21))
    np.testing.assert_array_equal(large.read(tile)[0], features[:, 2:18, 5:21])
