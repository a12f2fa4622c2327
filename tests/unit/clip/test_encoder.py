import numpy as np
import pytest
import torch
from tiny_clip import CONVNEXT, parity_clip, random_clip
from torch.nn import functional as F

from special_steps.clip import encoder as dense
from special_steps.clip.encoder import (
    make_encoder,
    resized_positions,
    slide,
    window_cosines,
    window_starts,
)
from special_steps.clip.model import load_clip
from special_steps.clip.upsample import load_jbu, make_upsampler
from special_steps.core.errors import UserError

KINDS = {
    "segearth": "SegEarth",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "maskclip": "MaskCLIP",
    "vanilla": "vanilla",
}
NONE = ((0.0,) * 3, (1.0,) * 3)  # mean and std of images that are normalised already


@pytest.fixture(scope="module")
def clip(parity, tmp_path_factory):
    return parity_clip(parity, tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip16(parity, tmp_path_factory):
    return parity_clip(parity, tmp_path_factory.mktemp("clip"), "tiny_clip_p16")


@pytest.fixture(scope="module")
def golden(parity):
    return {p.stem: np.load(p) for p in parity.glob("*.npz")}


def published_positions(tower, h, w):
    """The published resize: a scale factor with an offset of 0.1, kept as it is."""
    own = tower.positional_embedding
    grid = own[1:].T.reshape(1, -1, *tower.grid_size)
    factor = ((h + 0.1) / tower.grid_size[0], (w + 0.1) / tower.grid_size[1])
    grid = F.interpolate(grid, scale_factor=factor, mode="bicubic", recompute_scale_factor=False)
    return torch.cat([own[:1], grid[0].flatten(1).T])


def errors(encoder, outputs, size, kind):
    cells, token = encoder.features(torch.from_numpy(outputs[f"img_{size}"]))
    tokens = cells.flatten(2).mT.numpy() - outputs[f"img_{size}/{kind}/tokens"]
    return np.abs(tokens).max(), np.abs(token.numpy() - outputs[f"img_{size}/{kind}/cls"]).max()


@pytest.mark.parametrize("attention", KINDS)
def test_parity_of_attention_kinds(clip, golden, attention):
    encoder = make_encoder(clip, attention)
    assert max(errors(encoder, golden["tiny_clip_outputs"], "32x32", KINDS[attention])) < 1e-4


@pytest.mark.parametrize("size", ["48x64", "32x40"])
@pytest.mark.parametrize("attention", KINDS)
def test_parity_at_other_sizes_with_the_published_offset(
    clip, golden, attention, size, monkeypatch
):
    """With the published +0.1 we are equal; with the exact size, the difference is this large."""
    ours = errors(
        make_encoder(clip, attention), golden["tiny_clip_outputs"], size, KINDS[attention]
    )
    monkeypatch.setattr(dense, "resized_positions", published_positions)
    encoder = make_encoder(clip, attention)
    assert max(errors(encoder, golden["tiny_clip_outputs"], size, KINDS[attention])) < 1e-4
    assert 0.02 < max(ours) < 0.2  # of values up to 3.8


@pytest.mark.parametrize("size", ["48x64", "32x40"])
def test_difference_of_position_embeddings(clip, golden, size):
    wanted = golden["tiny_clip_outputs"][f"img_{size}/posemb"][0]
    h, w = (int(n) // 8 for n in size.split("x"))
    published = published_positions(clip.model.visual, h, w).numpy()
    exact = resized_positions(clip.model.visual, h, w).numpy()
    assert np.abs(published - wanted).max() < 1e-6
    assert 0.03 < np.abs(exact - wanted).max() < 0.06


def test_parity_of_text_tower(clip, golden):
    tokens = torch.from_numpy(golden["tiny_clip_outputs"]["text_tokens"])
    found = clip.model.encode_text(tokens).numpy()
    assert np.abs(found - golden["tiny_clip_outputs"]["text_features"]).max() < 1e-4


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def rows_of(image):
    return lambda first, last: image[:, first:last]


def slid(image, encoder, text, upsampler, **options):
    size, text = image.shape[1:], torch.from_numpy(text)
    parts = slide(rows_of(image), size, encoder, text, upsampler, **options)
    return np.concatenate([cosines for _, cosines in parts], 1)


@pytest.mark.parametrize(("method", "key"), [("bilinear", "bilinear"), ("none", "nofeatup")])
def test_parity_of_window_pipeline(clip, golden, method, key):
    want = golden["window_pipeline"]
    mean, std = (np.reshape(v, (3, 1, 1)).astype(np.float32) for v in (clip.mean, clip.std))
    image = (want["rgb"].transpose(2, 0, 1) - mean) / std
    assert np.abs(image - want["normalised"][0]).max() < 1e-6
    encoder, upsampler = make_encoder(clip), make_upsampler(method, *NONE)
    first = torch.from_numpy(want["normalised"][..., :32, :32])
    cosines = window_cosines(first, encoder, torch.from_numpy(want["text"]), upsampler).numpy()
    assert np.abs(cosines - want[f"{key}/first_window_logits"]).max() < 1e-4
    logits = slid(want["normalised"][0], encoder, want["text"], upsampler, window=32, stride=16)
    assert np.abs(logits - want[f"{key}/slide_logits"][0]).max() < 1e-4
    probability = softmax(50 * logits)
    assert np.abs(probability - want[f"{key}/prob"]).max() < 1e-4
    assert (probability.argmax(0) == want[f"{key}/pred"]).all()


def test_parity_of_odd_sizes_and_synonyms(clip, golden):
    want = golden["window_pipeline"]
    encoder, bilinear = make_encoder(clip), make_upsampler("bilinear", *NONE)
    options = {"window": 32, "stride": 16}
    odd = slid(want["odd/normalised"][0], encoder, want["text"], bilinear, **options)
    assert np.abs(softmax(50 * odd) - want["odd/bilinear/prob"]).max() < 1e-4
    multi = slid(want["normalised"][0], encoder, want["multi/text"], bilinear, **options)
    assert np.abs(multi - want["multi/slide_logits"][0]).max() < 1e-4
    small = torch.from_numpy(want["small/normalised"])  # 27 x 29: padded to the patch
    found = window_cosines(small, encoder, torch.from_numpy(want["text"]), bilinear).numpy()
    assert np.abs(found - want["small/bilinear/forward_feature_logits"]).max() < 1e-4


@pytest.mark.parametrize("method", ["bilinear", "jbu"])
def test_parity_of_window_pipeline_with_jbu(clip16, golden, method, tmp_path):
    want = golden["window_pipeline_jbu_p16"]
    state = {k[4:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("jbu/up.")}
    state |= {
        k: torch.from_numpy(want["jbu/" + k]) for k in ("fixup_proj.1.weight", "fixup_proj.1.bias")
    }
    torch.save(state, tmp_path / "jbu.pt")
    encoder = make_encoder(clip16)
    state = load_jbu(tmp_path / "jbu.pt", encoder.device, encoder.dim)
    upsampler = make_upsampler(method, *NONE, state)
    first = torch.from_numpy(want["normalised"][..., :64, :64])
    cells, token = encoder.features(first)
    assert np.abs(cells.flatten(2).mT.numpy() - want["first_window_tokens"]).max() < 1e-4
    assert np.abs(token.numpy() - want["first_window_cls"]).max() < 1e-4
    cosines = window_cosines(first, encoder, torch.from_numpy(want["text"]), upsampler).numpy()
    assert np.abs(cosines - want[f"{method}/first_window_logits"]).max() < 1e-4
    logits = slid(want["normalised"][0], encoder, want["text"], upsampler, window=64, stride=32)
    assert np.abs(logits - want[f"{method}/slide_logits"][0]).max() < 1e-4
    assert np.abs(softmax(50 * logits) - want[f"{method}/prob"]).max() < 1e-4


@pytest.mark.parametrize(
    ("size", "window", "stride", "starts"),
    [
        (224, 224, 112, [0]),
        (225, 224, 112, [0, 1]),
        (448, 224, 112, [0, 112, 224]),
        (449, 224, 112, [0, 112, 224, 225]),
        (10, 224, 112, [0]),
        (10, 3, 3, [0, 3, 6, 7]),
    ],
)
def test_window_starts(size, window, stride, starts):
    assert window_starts(size, window, stride) == starts


def position_encoder(patch=4):
    """An encoder whose features are the mean colour of each cell, and that counts its windows."""
    seen = []

    def features(images):
        seen.append(tuple(images.shape))
        return F.avg_pool2d(images, patch), None

    return dense.Encoder(features, patch, 3, torch.device("cpu")), seen


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 40), (31, 16), (33, 50)])
def test_slide_covers_every_pixel_of_any_scene(shape):
    encoder, seen = position_encoder(patch=1)
    image = np.random.default_rng(0).random((3, *shape), np.float32) + 0.1
    text = np.eye(3, dtype=np.float32)
    found = slid(image, encoder, text, make_upsampler("none", *NONE), window=16, stride=5)
    assert np.abs(found - image / np.linalg.norm(image, axis=0)).max() < 1e-5
    assert {s[2:] for s in seen} == {(16, 16)}


def test_slide_holds_one_row_of_windows():
    encoder, seen = position_encoder()
    image = np.random.default_rng(0).random((3, 64, 40), np.float32)
    read = []

    def rows(first, last):
        read.append((first, last))
        return image[:, first:last]

    options = {"window": 16, "stride": 8, "batch": 3}
    upsampler = make_upsampler("none", *NONE)
    bands = slide(rows, (64, 40), encoder, torch.eye(3), upsampler, **options)
    top, cosines = next(bands)
    assert (top, cosines.shape) == (0, (3, 8, 40))
    assert read == [(0, 16)]
    assert [s[0] for s in seen] == [3, 1]  # the four windows of the first row, nothing more
    assert [c.shape[1] for _, c in bands] == [8] * 5 + [16]


def test_the_batch_does_not_matter(clip):
    image = np.random.default_rng(0).random((3, 60, 90), np.float32)
    encoder = dense.make_encoder(clip)
    text = np.random.default_rng(1).standard_normal((4, encoder.dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    upsampler = make_upsampler("guided", clip.mean, clip.std)
    one, eight = (
        slid(image, encoder, text, upsampler, window=32, stride=16, batch=n) for n in (1, 8)
    )
    assert np.abs(one - eight).max() < 1e-4


def test_stride_beyond_window_is_refused():
    encoder, _ = position_encoder()
    with pytest.raises(UserError, match="stride 17"):
        slid(np.ones((3, 20, 20), np.float32), encoder, np.eye(3), None, window=16, stride=17)


# --- image towers ------------------------------------------------------------------------------

RESNET = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "image_size": 64}


@pytest.mark.parametrize("vision", [CONVNEXT, RESNET], ids=["convnext", "resnet"])
def test_convolutional_towers(tmp_path, vision):
    clip = random_clip(tmp_path, **vision)
    encoder = make_encoder(clip)
    images = torch.rand(2, 3, 64, 96)
    cells, whole = encoder.features(images)
    assert (encoder.patch, encoder.dim, tuple(cells.shape)) == (32, 24, (2, 24, 2, 3))
    if vision is RESNET:  # its attention pool takes 64 x 64 px only
        assert whole is None
    else:
        with torch.inference_mode():
            assert (whole - clip.model.visual(images)).abs().max() < 1e-5


def test_convolutional_cell_is_what_the_tower_says_of_a_uniform_map(tmp_path):
    """Where all cells are alike, each is embedded as the tower embeds the image."""
    clip = random_clip(tmp_path, **CONVNEXT)
    tower = clip.model.visual
    tower.trunk.forward_features = lambda images: images.new_ones(1, 64, 2, 2) * ramp
    ramp = torch.linspace(-1, 2, 64).view(1, 64, 1, 1)
    cells, _ = dense.timm_features(tower, torch.zeros(1, 3, 64, 64))
    whole = tower(torch.zeros(1, 3, 64, 64))
    assert (cells - whole[:, :, None, None]).abs().max() < 1e-5
    assert whole.std() > 0.01


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet", "test_byobnet"])
def test_folded_norms_change_nothing_but_the_rounding(tmp_path, name):
    clip = random_clip(tmp_path, timm_model_name=name, timm_proj="linear", timm_pool="avg")
    tower = clip.model.visual
    norms = [m for m in tower.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    torch.manual_seed(0)
    for norm in norms:
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.3, 3)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    images = torch.rand(2, 3, 64, 96)
    folded = dense._folded(tower, clip)
    kept = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not kept
    with torch.inference_mode():
        want, got = (dense.timm_features(t, images)[0] for t in (tower, folded))
    assert (want - got).abs().max() < 1e-4 * want.abs().max()
    assert want.std() > 1e-3
    after = tower.state_dict()  # of the model itself, which others use
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_fused_norms_change_rounding_only():
    clip = load_clip()
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        wanted, _ = dense.timm_features(clip.model.visual, images)
    found, _ = make_encoder(clip).features(images)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    kinds = {type(module).__name__ for module in clip.model.visual.trunk.modules()}
    assert "BatchNormAct2d" in kinds  # the model itself stays as it is


def test_towers_without_dense_features_are_refused(tmp_path):
    vision = {"timm_model_name": "test_vit", "timm_proj": "linear", "timm_pool": "avg"}
    with pytest.raises(UserError, match="supported are"):
        make_encoder(random_clip(tmp_path, **vision))


def test_unknown_attention_and_precision(clip):
    with pytest.raises(UserError, match="unknown attention 'gav'"):
        make_encoder(clip, "gav")
    with pytest.raises(UserError, match="unknown precision 'int8'"):
        make_encoder(clip, precision="int8")
