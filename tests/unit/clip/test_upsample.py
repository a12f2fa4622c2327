import numpy as np
import pytest
import torch
from dense_clip import random_jbu
from torch.nn import functional as F

from special_steps.clip.jbu import jbu_cosines
from special_steps.clip.upsample import joint_bilateral, joint_bilateral_weights, make_upsampler
from special_steps.core.errors import UserError

torch.set_num_threads(1)
NONE = ((0.0,) * 3, (1.0,) * 3)  # mean and std of images in [0, 1]


def test_wrong_methods():
    with pytest.raises(UserError, match="jbu_weights"):
        make_upsampler("jbu", *NONE, None)
    with pytest.raises(UserError, match="unknown upsampling 'nearest'"):
        make_upsampler("nearest", *NONE, None)


def test_jbu_goes_window_by_window():
    torch.manual_seed(0)
    state, patch_features = random_jbu(16), torch.randn(2, 16, 4, 4)
    text, images = F.normalize(torch.randn(3, 16), dim=1), torch.rand(2, 3, 64, 64)
    found = make_upsampler("jbu", *NONE, state)(patch_features, text, images)
    assert torch.equal(found[1:], jbu_cosines(state, patch_features[1:], text, images[1:]))


def upsampled(patch_features, image):
    """Features by joint bilateral upsampling the plain way: (n, channel, y, x)."""
    n, _, h, w = patch_features.shape
    weights = joint_bilateral_weights(image, h, w)
    s = round(weights.shape[3] ** 0.5)
    maps = weights.unflatten(3, (s, s)).unflatten(1, (h, w)).permute(0, 3, 1, 4, 2, 5)
    maps = maps.reshape(n, 25, h * s, w * s)
    padded = F.pad(patch_features, (2, 2, 2, 2))
    out = 0
    for i in range(5):
        for j in range(5):
            near = padded[:, :, i : i + h, j : j + w]
            near = near.repeat_interleave(s, 2).repeat_interleave(s, 3)
            out = out + maps[:, 5 * i + j, None] * near
    return out


def cosines(features, text):
    return torch.einsum("kd,ndhw->nkhw", text, F.normalize(features, dim=1))


def test_cosines_equal_those_of_upsampled_features():
    torch.manual_seed(0)
    patch_features, text = torch.randn(2, 40, 3, 4), F.normalize(torch.randn(5, 40), dim=1)
    image = torch.rand(2, 3, 12, 16)
    bilinear = F.interpolate(patch_features, (12, 16), mode="bilinear")
    joint = upsampled(patch_features, image)
    for method, features in (
        ("joint_bilateral", joint),
        ("bilinear", bilinear),
    ):
        found = make_upsampler(method, *NONE, None)(patch_features, text, image)
        assert (found - cosines(features, text)).abs().max() < 1e-5, method


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (3, 8)])
@pytest.mark.parametrize("method", ["bilinear", "joint_bilateral"])
def test_cosines_equal_those_of_the_naive_path(method, shape):
    """Features that are alike, as a ViT's are, and features that are not; 224 px and odd maps."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, *(16 * n for n in shape))
    text = F.normalize(torch.randn(5, 64), dim=1)
    for offset in (0, 20):
        patch_features = torch.randn(1, 64, *shape) + offset * torch.randn(64, 1, 1)
        found = make_upsampler(method, *NONE, None)(patch_features, text, image)
        assert found.shape == (1, 5, *image.shape[-2:])
        if method == "bilinear":
            wanted = F.interpolate(patch_features, image.shape[-2:], mode="bilinear")
        else:
            wanted = upsampled(patch_features, image)
        assert (found - cosines(wanted, text)).abs().max() < 1e-4


def edge_scene(noise):
    """Two areas with a slanted border: image, and features averaged over patches of 16.

    The features are those of a model that has learned the two areas' names.
    """
    y, x = np.mgrid[:160, :160]
    truth = (x + 0.4 * y > 117).astype(np.float32)
    image = np.stack([0.3 + 0.3 * truth, 0.5 - 0.2 * truth, 0.4 + 0.1 * truth])
    image = image + noise * np.random.default_rng(0).standard_normal(image.shape)
    labels = torch.from_numpy(np.stack([1 - truth, truth]))[None]
    image = torch.from_numpy(image.astype(np.float32)).clamp(0, 1)[None]
    return F.avg_pool2d(labels, 16), image, truth


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_joint_bilateral_finds_the_edge_that_bilinear_blurs(noise):
    patch_features, image, truth = edge_scene(noise)
    wrong, error = {}, {}
    for method in ("joint_bilateral", "bilinear"):
        found = make_upsampler(method, *NONE, None)(patch_features, torch.eye(2), image)[0].numpy()
        wrong[method] = (found.argmax(0) != truth).mean()
        error[method] = np.abs(found[1] - truth).mean()
    assert wrong["joint_bilateral"] < 0.5 * wrong["bilinear"]
    assert error["joint_bilateral"] < 0.6 * error["bilinear"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 3)])
def test_joint_bilateral_is_a_mean_everywhere(shape):
    """Weights sum to one over patches that exist, also at borders and in tiny maps."""
    h, w = shape
    image = torch.rand(2, 3, h * 4, w * 4)
    assert (upsampled(torch.ones(2, 3, h, w), image) - 1).abs().max() < 1e-5
    found = joint_bilateral(torch.ones(2, 1, h, w), torch.ones(1, 1), image)
    assert found.shape == (2, 1, h * 4, w * 4)
    assert (found - 1).abs().max() < 1e-5


def test_joint_bilateral_without_guidance_is_smooth_and_in_place():
    """On a flat image a ramp stays the ramp away from the borders: no shift, no steps."""
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    found = upsampled(ramp, torch.full((1, 3, 48, 48), 0.5))[0, 0]
    wanted = (torch.arange(48) + 0.5) / 4 - 0.5
    assert (found[:, 12:-12] - wanted[12:-12]).abs().max() < 0.1
    assert found.diff(dim=1)[:, 12:-12].min() > 0


def test_joint_bilateral_takes_images_that_are_no_multiple_of_the_map():
    found = joint_bilateral(torch.rand(1, 2, 3, 3), torch.eye(2), torch.rand(1, 3, 50, 47))
    assert found.shape == (1, 2, 51, 51)


def test_joint_bilateral_treats_the_model_normalisation():
    patch_features, image, _ = edge_scene(0.0)
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.3, 0.4)
    normalised = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = make_upsampler("joint_bilateral", mean, std, None)(
        patch_features, torch.eye(2), normalised
    )
    assert (found - joint_bilateral(patch_features, torch.eye(2), image)).abs().max() < 1e-4
