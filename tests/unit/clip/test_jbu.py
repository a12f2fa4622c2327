import numpy as np
import pytest
import torch
from dense_clip import random_jbu
from safetensors.torch import save_file
from torch.nn import functional as F

from special_steps.clip.jbu import jbu_cosines, jbu_filter, load_jbu
from special_steps.core.errors import UserError
from special_steps.kernels import build

torch.set_num_threads(1)
CPU = torch.device("cpu")


def published(state, source, guidance):
    """The whole learned upsampler as published: features (n, dim, 16 h, 16 w), f + 0.1 (W f + b) of the filtered f."""
    windows = zip(source.split(1), guidance.split(1), strict=True)
    f = torch.cat([jbu_filter(state, x, image, None) for x, image in windows])
    return f + 0.1 * F.conv2d(f, state["fixup_proj.1.weight"], state["fixup_proj.1.bias"])


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
    found = published(state, *(torch.from_numpy(want[k]) for k in ("source", "guidance"))).numpy()
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


def test_jbu_needs_patches(parity):
    want = np.load(parity / "jbu_one_4_64.npz")
    state = {k[6:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("state/")}
    with pytest.raises(UserError, match="enlarge window"):
        published(state, torch.ones(1, 32, 2, 2), torch.ones(1, 3, 32, 32))


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (3, 8)])
def test_cosines_equal_those_of_the_published_way(shape, way):
    """Features that are alike, as a ViT's are, and features that are not; 224 px and odd maps."""
    torch.manual_seed(0)
    state = random_jbu(64)
    image = torch.rand(1, 3, *(16 * n for n in shape))
    text = F.normalize(torch.randn(5, 64), dim=1)
    for offset in (0, 20):
        patch_features = torch.randn(1, 64, *shape) + offset * torch.randn(64, 1, 1)
        found = jbu_cosines(state, patch_features, text, image)
        assert found.shape == (1, 5, *image.shape[-2:])
        features = F.normalize(published(state, patch_features, image), dim=1)
        wanted = torch.einsum("kd,ndhw->nkhw", text, features)
        assert (found - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(14, 14), (7, 5), (3, 8), (4, 37)])
def test_both_ways_of_a_doubling_are_the_same(shape, monkeypatch):
    """Also where borders and the ends of vectors meet, whatever the number of threads."""
    if not build.available("jbu"):
        pytest.skip("needs a C++ compiler")
    torch.manual_seed(0)
    state, source = random_jbu(48), torch.randn(1, 48, *shape)
    image = torch.rand(1, 3, *(16 * n for n in shape))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    three = published(state, source, image)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert torch.equal(published(state, source, image), three)
    monkeypatch.setattr(build, "available", lambda *names: False)
    assert (published(state, source, image) - three).abs().max() < 1e-5
