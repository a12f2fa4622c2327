import numpy as np
import pytest
import torch
from tiny_clip import parity_clip
from torch.nn import functional as F

from special_steps.clip.encoder import Encoder, make_encoder
from special_steps.clip.jbu import load_jbu
from special_steps.clip.upsample import make_upsampler
from special_steps.clip.windows import slide, window_cosines
from special_steps.core.errors import UserError

NONE = ((0.0,) * 3, (1.0,) * 3)  # mean and std of images that are normalised already
ENCODER, BIAS = ("segearth", "fp32"), -0.3  # as published


@pytest.fixture(scope="module")
def clip(parity, tmp_path_factory):
    return parity_clip(parity, tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip16(parity, tmp_path_factory):
    return parity_clip(parity, tmp_path_factory.mktemp("clip"), "tiny_clip_p16")


@pytest.fixture(scope="module")
def golden(parity):
    return {p.stem: np.load(p) for p in parity.glob("*.npz")}


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def rows_of(image):
    return lambda first, last: image[:, first:last]


def slid(image, encoder, text, upsampler, **options):
    size, text = image.shape[1:], torch.from_numpy(text)
    options = {"global_bias": BIAS} | options
    parts = slide(rows_of(image), size, encoder, text, upsampler, **options)
    return np.concatenate([cosines for _, cosines in parts], 1)


def not_upsampled(patch_features, text, images):
    """The published baseline without upsampling: cosines per patch."""
    return torch.einsum("kd,ndhw->nkhw", text, F.normalize(patch_features, dim=1))


@pytest.mark.parametrize("key", ["bilinear", "nofeatup"])
def test_parity_of_window_pipeline(clip, golden, key):
    want = golden["window_pipeline"]
    mean, std = (np.reshape(v, (3, 1, 1)).astype(np.float32) for v in (clip.mean, clip.std))
    image = (want["rgb"].transpose(2, 0, 1) - mean) / std
    assert np.abs(image - want["normalised"][0]).max() < 1e-6
    encoder = make_encoder(clip, *ENCODER)
    upsampler = not_upsampled if key == "nofeatup" else make_upsampler(key, *NONE, None)
    first = torch.from_numpy(want["normalised"][..., :32, :32])
    cosines = window_cosines(
        first, encoder, torch.from_numpy(want["text"]), upsampler, BIAS
    ).numpy()
    assert np.abs(cosines - want[f"{key}/first_window_logits"]).max() < 1e-4
    logits = slid(want["normalised"][0], encoder, want["text"], upsampler, window=32, stride=16)
    assert np.abs(logits - want[f"{key}/slide_logits"][0]).max() < 1e-4
    probability = softmax(50 * logits)
    assert np.abs(probability - want[f"{key}/prob"]).max() < 1e-4
    assert (probability.argmax(0) == want[f"{key}/pred"]).all()


def test_parity_of_odd_sizes_and_synonyms(clip, golden):
    want = golden["window_pipeline"]
    encoder, bilinear = make_encoder(clip, *ENCODER), make_upsampler("bilinear", *NONE, None)
    options = {"window": 32, "stride": 16}
    odd = slid(want["odd/normalised"][0], encoder, want["text"], bilinear, **options)
    assert np.abs(softmax(50 * odd) - want["odd/bilinear/prob"]).max() < 1e-4
    multi = slid(want["normalised"][0], encoder, want["multi/text"], bilinear, **options)
    assert np.abs(multi - want["multi/slide_logits"][0]).max() < 1e-4
    small = torch.from_numpy(want["small/normalised"])  # 27 x 29: padded to the patch
    found = window_cosines(small, encoder, torch.from_numpy(want["text"]), bilinear, BIAS).numpy()
    assert np.abs(found - want["small/bilinear/forward_feature_logits"]).max() < 1e-4


@pytest.mark.parametrize("method", ["bilinear", "jbu"])
def test_parity_of_window_pipeline_with_jbu(clip16, golden, method, tmp_path):
    want = golden["window_pipeline_jbu_p16"]
    state = {k[4:]: torch.from_numpy(want[k]) for k in want.files if k.startswith("jbu/up.")}
    state |= {
        k: torch.from_numpy(want["jbu/" + k]) for k in ("fixup_proj.1.weight", "fixup_proj.1.bias")
    }
    torch.save(state, tmp_path / "jbu.pt")
    encoder = make_encoder(clip16, *ENCODER)
    state = load_jbu(tmp_path / "jbu.pt", encoder.device, encoder.dim)
    upsampler = make_upsampler(method, *NONE, state)
    first = torch.from_numpy(want["normalised"][..., :64, :64])
    patch_features, token = encoder.features(first)
    assert np.abs(patch_features.flatten(2).mT.numpy() - want["first_window_tokens"]).max() < 1e-4
    assert np.abs(token.numpy() - want["first_window_cls"]).max() < 1e-4
    cosines = window_cosines(
        first, encoder, torch.from_numpy(want["text"]), upsampler, BIAS
    ).numpy()
    assert np.abs(cosines - want[f"{method}/first_window_logits"]).max() < 1e-4
    logits = slid(want["normalised"][0], encoder, want["text"], upsampler, window=64, stride=32)
    assert np.abs(logits - want[f"{method}/slide_logits"][0]).max() < 1e-4
    assert np.abs(softmax(50 * logits) - want[f"{method}/prob"]).max() < 1e-4


def position_encoder(patch=4):
    """An encoder whose features are the mean colour of each patch, and that counts its windows."""
    seen = []

    def features(images):
        seen.append(tuple(images.shape))
        return F.avg_pool2d(images, patch), None

    return Encoder(features, patch, 3, torch.device("cpu")), seen


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 40), (31, 16), (33, 50)])
def test_slide_covers_every_pixel_of_any_scene(shape):
    encoder, seen = position_encoder(patch=1)
    image = np.random.default_rng(0).random((3, *shape), np.float32) + 0.1
    text = np.eye(3, dtype=np.float32)
    found = slid(image, encoder, text, not_upsampled, window=16, stride=5)
    assert np.abs(found - image / np.linalg.norm(image, axis=0)).max() < 1e-5
    assert {s[2:] for s in seen} == {(16, 16)}


def test_slide_holds_one_row_of_windows():
    encoder, seen = position_encoder()
    image = np.random.default_rng(0).random((3, 64, 40), np.float32)
    read = []

    def rows(first, last):
        read.append((first, last))
        return image[:, first:last]

    options = {"window": 16, "stride": 8, "global_bias": BIAS, "batch": 3}
    bands = slide(rows, (64, 40), encoder, torch.eye(3), not_upsampled, **options)
    top, cosines = next(bands)
    assert (top, cosines.shape) == (0, (3, 8, 40))
    assert read == [(0, 16)]
    assert [s[0] for s in seen] == [3, 1]  # the four windows of the first row, nothing more
    assert [c.shape[1] for _, c in bands] == [8] * 5 + [16]


def test_the_batch_does_not_matter(clip):
    image = np.random.default_rng(0).random((3, 60, 90), np.float32)
    encoder = make_encoder(clip, *ENCODER)
    text = np.random.default_rng(1).standard_normal((4, encoder.dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    upsampler = make_upsampler("joint_bilateral", clip.mean, clip.std, None)
    one, eight = (
        slid(image, encoder, text, upsampler, window=32, stride=16, batch=n) for n in (1, 8)
    )
    assert np.abs(one - eight).max() < 1e-4


def test_stride_beyond_window_is_refused():
    encoder, _ = position_encoder()
    with pytest.raises(UserError, match="stride 17"):
        slid(np.ones((3, 20, 20), np.float32), encoder, np.eye(3), None, window=16, stride=17)
