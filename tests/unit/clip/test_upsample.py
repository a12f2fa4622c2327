import numpy as np
import pytest
import torch
from dense_clip import random_jbu
from safetensors.torch import save_file
from torch.nn import functional as F

from special_steps.clip.upsample import (
    cosines_of_coordinates,
    cosines_of_filter,
    guided,
    guided_weights,
    jbu,
    load_jbu,
    make_upsampler,
)
from special_steps.core.errors import UserError
from special_steps.kernels import build

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """Both ways of a doubling."""
    if request.param == "torch":
        monkeypatch.setattr(build, "available", lambda *names: False)
    elif not build.available("jbu"):
        pytest.skip("needs a C++ compiler")


@pytest.mark.parametrize("name", ["one_4_64", "stack_4_64", "one_14_224", "stack_14_224"])
def test_parity_of_jbu(parity, name, way):
    want = np.load(parity / f"jbu_{name}.npz")
    state = {k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")}
    found = jbu(state, *(torch.from_numpy(want[k]) for k in ("source", "guidance"))).numpy()
    if "output" in want.files:
        assert np.abs(found - want["output"]).max() < 1e-4
        return
    assert found.shape == tuple(want["output_shape"])
    assert np.abs(found[..., ::4, ::4] - want["output_ds4"]).max() < 1e-4
    assert np.abs(found[..., :24, :24] - want["output_corner"]).max() < 1e-4
    assert np.abs(found[..., -24:, -24:] - want["output_end"]).max() < 1e-4
    assert found.sum(dtype=np.float64) == pytest.approx(want["output_sum"], abs=0.1)
    assert np.abs(found).sum(dtype=np.float64) == pytest.approx(want["output_abs"], abs=0.1)


@pytest.mark.parametrize("prefix", ["", "upsampler."])
def test_load_jbu_checks(parity, tmp_path, prefix):
    want = np.load(parity / "jbu_stack_4_64.npz")
    state = {
        prefix + k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")
    }
    torch.save({"state_dict": state}, tmp_path / "jbu.ckpt")
    save_file(state, tmp_path / "jbu.safetensors")
    assert "up4.range_temp" in load_jbu(tmp_path / "jbu.ckpt", CPU, 32)
    with pytest.raises(UserError, match="32 feature channels, the CLIP model has 512"):
        load_jbu(tmp_path / "jbu.safetensors", CPU, 512)
    del state[prefix + "up3.fixup_proj.0.bias"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(UserError, match=r"no up3\.fixup_proj\.0\.bias"):
        load_jbu(tmp_path / "part.pt", CPU, 32)


def test_jbu_needs_weights_and_cells(parity):
    with pytest.raises(UserError, match="jbu_weights"):
        make_upsampler("jbu", (0,) * 3, (1,) * 3)
    with pytest.raises(UserError, match="unknown upsampling 'nearest'"):
        make_upsampler("nearest", (0,) * 3, (1,) * 3)
    want = np.load(parity / "jbu_one_4_64.npz")
    state = {k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")}
    with pytest.raises(UserError, match="enlarge window"):
        jbu(state, torch.ones(1, 32, 2, 2), torch.ones(1, 3, 32, 32))


def upsampled(cells, image):
    """Features by guided upsampling the plain way: (n, channel, y, x)."""
    n, _, h, w = cells.shape
    weights = guided_weights(image, h, w)
    s = round(weights.shape[3] ** 0.5)
    maps = weights.unflatten(3, (s, s)).unflatten(1, (h, w)).permute(0, 3, 1, 4, 2, 5)
    maps = maps.reshape(n, 25, h * s, w * s)
    padded = F.pad(cells, (2, 2, 2, 2))
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
    cells, text = torch.randn(2, 40, 3, 4), F.normalize(torch.randn(5, 40), dim=1)
    image = torch.rand(2, 3, 12, 16)
    found = guided(cells, text, image)
    assert (found - cosines(upsampled(cells, image), text)).abs().max() < 1e-5

    def bilinear(x):
        return F.interpolate(x, (12, 16), mode="bilinear")

    def filter_(x, known):
        return cosines_of_coordinates(bilinear(x).permute(0, 2, 3, 1), known).permute(0, 3, 1, 2)

    found = make_upsampler("bilinear", (0,) * 3, (1,) * 3)(cells, text, image)
    assert (found - cosines(bilinear(cells), text)).abs().max() < 1e-5
    found = make_upsampler("none", (0,) * 3, (1,) * 3)(cells, text, image)
    assert (found - cosines(cells, text)).abs().max() < 1e-5
    weight, bias = torch.randn(40, 40) / 6, torch.randn(40)
    found = cosines_of_filter(filter_, cells[:1], text, weight, bias)
    up = bilinear(cells[:1])
    up = up + torch.einsum("dc,nchw->ndhw", weight, up) + bias[:, None, None]
    assert (found - cosines(up, text)).abs().max() < 1e-5


def naive(method, state, cells, image):
    """Features at every pixel, all channels: the published way."""
    if method == "bilinear":
        return F.interpolate(cells, image.shape[-2:], mode="bilinear")
    return upsampled(cells, image) if method == "guided" else jbu(state, cells, image)


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (3, 8)])
@pytest.mark.parametrize(
    ("method", "way"),
    [("bilinear", "torch"), ("guided", "torch"), ("jbu", "kernel"), ("jbu", "torch")],
    indirect=["way"],
)
def test_cosines_equal_those_of_the_naive_path(method, shape, way):
    """Features that are alike, as a ViT's are, and features that are not; 224 px and odd maps."""
    torch.manual_seed(0)
    state = random_jbu(64)
    image = torch.rand(1, 3, *(16 * n for n in shape))
    text = F.normalize(torch.randn(5, 64), dim=1)
    upsampler = make_upsampler(method, (0,) * 3, (1,) * 3, state)
    for offset in (0, 20):
        cells = torch.randn(1, 64, *shape) + offset * torch.randn(64, 1, 1)
        found = upsampler(cells, text, image)
        assert found.shape == (1, 5, *image.shape[-2:])
        assert (found - cosines(naive(method, state, cells, image), text)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (3, 8), (4, 37)])
def test_both_ways_of_a_doubling_are_the_same(shape, monkeypatch):
    """Also where borders and the ends of vectors meet, whatever the number of threads."""
    if not build.available("jbu"):
        pytest.skip("needs a C++ compiler")
    torch.manual_seed(0)
    state, cells = random_jbu(48), torch.randn(1, 48, *shape)
    image = torch.rand(1, 3, *(16 * n for n in shape))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    three = jbu(state, cells, image)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(jbu(state, cells, image), three)
    monkeypatch.setattr(build, "available", lambda *names: False)
    assert (jbu(state, cells, image) - three).abs().max() < 1e-5


def edge_scene(noise):
    """Two areas with a slanted border: image, and features averaged over cells of 16.

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
def test_guided_finds_the_edge_that_bilinear_blurs(noise):
    cells, image, truth = edge_scene(noise)
    wrong, error = {}, {}
    for method in ("guided", "bilinear"):
        found = make_upsampler(method, (0,) * 3, (1,) * 3)(cells, torch.eye(2), image)[0].numpy()
        wrong[method] = (found.argmax(0) != truth).mean()
        error[method] = np.abs(found[1] - truth).mean()
    assert wrong["guided"] < 0.5 * wrong["bilinear"]
    assert error["guided"] < 0.6 * error["bilinear"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 3)])
def test_guided_is_a_mean_everywhere(shape):
    """Weights sum to one over cells that exist, also at borders and in tiny maps."""
    h, w = shape
    image = torch.rand(2, 3, h * 4, w * 4)
    assert (upsampled(torch.ones(2, 3, h, w), image) - 1).abs().max() < 1e-5
    found = guided(torch.ones(2, 1, h, w), torch.ones(1, 1), image)
    assert found.shape == (2, 1, h * 4, w * 4)
    assert (found - 1).abs().max() < 1e-5


def test_guided_without_guidance_is_smooth_and_in_place():
    """On a flat image a ramp stays the ramp away from the borders: no shift, no steps."""
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    found = upsampled(ramp, torch.full((1, 3, 48, 48), 0.5))[0, 0]
    wanted = (torch.arange(48) + 0.5) / 4 - 0.5
    assert (found[:, 12:-12] - wanted[12:-12]).abs().max() < 0.1
    assert found.diff(dim=1)[:, 12:-12].min() > 0


def test_guided_takes_images_that_are_no_multiple_of_the_map():
    found = guided(torch.rand(1, 2, 3, 3), torch.eye(2), torch.rand(1, 3, 50, 47))
    assert found.shape == (1, 2, 51, 51)


def test_guided_treats_the_model_normalisation():
    cells, image, _ = edge_scene(0.0)
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.3, 0.4)
    normalised = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = make_upsampler("guided", mean, std)(cells, torch.eye(2), normalised)
    assert (found - guided(cells, torch.eye(2), image)).abs().max() < 1e-4
