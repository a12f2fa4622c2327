import numpy as np
import pytest
import torch
from torch.nn import functional as F

from special_steps.clip.resize import resized_back, resized_rows

SIZES = [(20, 30), (10, 15), (30, 45), (60, 90), (13, 41), (47, 17), (1, 1)]


@pytest.mark.parametrize("target", SIZES)
def test_resized_rows_are_those_of_the_whole_image(target):
    image = np.random.default_rng(0).random((3, 20, 30), np.float32)
    whole = F.interpolate(
        torch.from_numpy(image)[None], target, mode="bicubic", antialias=True
    )[0].clamp(0, 1)  # fmt: skip
    asked = []

    def read(first, last):
        asked.append(last - first)
        return image[:, first:last]

    for first in range(0, target[0], 4):
        last = min(first + 4, target[0])
        rows = resized_rows(read, (20, 30), target, first, last)
        assert np.abs(rows - whole[:, first:last].numpy()).max() < 1e-5
    if target[0] >= 40:
        assert max(asked) < 20


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("strip", [1, 7, 100])
def test_resized_back_is_that_of_the_whole_map(source, strip):
    maps = np.random.default_rng(0).random((2, *source), np.float32)
    shrinks = source[0] >= 20 and source[1] >= 30
    mode = "area" if shrinks else "bilinear"
    whole = F.interpolate(torch.from_numpy(maps)[None], (20, 30), mode=mode)[0].numpy()
    strips = [maps[:, y : y + strip] for y in range(0, source[0], strip)]
    found = np.concatenate(list(resized_back(strips, source, (20, 30))), 1)
    assert np.abs(found - whole).max() < 1e-5


def test_resizing_there_and_back_keeps_the_place():
    y, x = np.mgrid[:20, :30] / 30
    smooth = np.stack([y, x, (y + x) / 2]).astype(np.float32)
    for scale in (0.5, 1, 1.5, 2, 3):
        size = round(20 * scale), round(30 * scale)
        there = resized_rows(lambda a, b: smooth[:, a:b], (20, 30), size, 0, size[0])
        assert there.min() >= 0 <= 1 >= there.max()
        back = np.concatenate(list(resized_back([there], size, (20, 30))), 1)
        assert np.abs(back - smooth)[:, 3:-3, 3:-3].max() < 0.01, scale
