from itertools import pairwise

import numpy as np
import pytest
import torch

from special_steps.classifier import loop as training
from special_steps.core.errors import UserError
from special_steps.core.store import new_store, open_store, write_array

CLASSIFIER = {"hidden": 8, "tokens": 4}


def small_model(seed=0):
    return training.start(5, 3, CLASSIFIER, seed, torch.device("cpu"))


def whole(features):
    nodata = np.zeros(features.shape[2:], bool)
    return training.Scene(lambda _: features, features.shape[1], nodata, 1200)


def anywhere(rng, window):
    return np.arange(3), np.arange(3)


def one_round(model, optimizer, rng):
    generator = torch.Generator().manual_seed(1)
    scene = torch.rand(1, 5, 9, 14, generator=generator)
    labels = np.arange(9 * 14) % 3

    def losses(logits, _):
        target = torch.from_numpy(labels)
        return {"random": (1.0, torch.nn.functional.cross_entropy(logits, target))}

    return training.train_round(
        model, optimizer, whole(scene), anywhere, losses,
        rates=[1e-3] * 3, noise=0.1, rng=rng, title="test",
    )  # fmt: skip


def test_learning_rate_is_a_cosine_between_its_limits():
    rates = [training.learning_rate(step, 101, [1e-3, 1e-5]) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[100] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates))
    assert training.learning_rate(0, 1, [1e-3, 1e-5]) == pytest.approx(1e-3)


def test_draw_is_class_balanced_and_follows_the_margin():
    labels = np.array([1, 1, 1, 3, 0], np.uint8)
    margin = np.array([0.0, 0.3, 0.1, 0.5, 0.9], np.float32)
    pixels, classes = training.class_balanced(labels, margin, 20_000)(np.random.default_rng(0))
    counts = np.bincount(pixels, minlength=5)
    assert len(pixels) == 40_000
    assert counts[4] == 0, "a pixel without data was drawn"
    assert counts[0] == 0
    assert counts[3] == 20_000
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.05)
    np.testing.assert_array_equal(classes, labels[pixels].astype(int) - 1)


def test_draw_without_margins_is_uniform():
    labels, margin = np.ones(4, np.uint8), np.zeros(4, np.float32)
    pixels, _ = training.class_balanced(labels, margin, 8000)(np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(pixels) / 8000, 0.25, atol=0.02)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_turns_are_rot90s(turns, flip):
    image = torch.arange(2 * 3 * 5).reshape(1, 2, 3, 5)
    wanted = torch.rot90(image, turns, (2, 3))
    assert torch.equal(training.turned(image, turns, flip), wanted.flip(3) if flip else wanted)


def test_noise_is_normal_and_does_not_depend_on_threads():
    like, threads = torch.empty(1, 20, 60, 50), torch.get_num_threads()
    drawn = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            drawn.append(training.gaussian(like, np.random.default_rng(0)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*drawn)
    assert drawn[0].shape == like.shape
    assert drawn[0].is_contiguous(memory_format=torch.channels_last)
    assert abs(drawn[0].mean()) < 0.02
    assert abs(drawn[0].std() - 1) < 0.02
    parts = drawn[0].permute(0, 2, 3, 1).flatten().chunk(8)
    assert abs(np.corrcoef(parts[0], parts[1])[0, 1]) < 0.05
    assert not torch.equal(training.gaussian(like, np.random.default_rng(1)), drawn[0])


def test_augmentation_keeps_pixels_in_their_places():
    """A network that copies its first bands must give each pixel its own values, however turned."""
    scene = torch.arange(2 * 3 * 5, dtype=torch.float32).reshape(1, 2, 3, 5)

    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.factor

    model = Copy()
    seen = []

    def losses(logits, _):
        seen.append(logits.detach().clone())
        return {"random": (1.0, logits.sum() * 0)}

    optimizer = torch.optim.Adam(model.parameters())
    rng = np.random.default_rng(0)
    training.train_round(
        model, optimizer, whole(scene), anywhere, losses,
        rates=[0.1] * 30, noise=0, rng=rng, title="test",
    )  # fmt: skip
    assert all(torch.equal(logits, scene[0].flatten(1).T) for logits in seen)


def tiled(features, tile):
    """A scene that is read in parts, and what was read."""
    asked = []

    def read(window):
        asked.append(window)
        return features[:, :, *window]

    nodata = np.zeros(features.shape[2:], bool)
    return training.Scene(read, features.shape[1], nodata, tile), asked


@pytest.mark.parametrize("shape", [(40, 70), (9, 70), (33, 32)])
def test_tiles_lie_in_the_scene_around_drawn_pixels(shape):
    scene, _ = tiled(torch.zeros(1, 1, *shape), 16)
    labels = np.zeros(shape, np.uint8)
    labels[2, 3], labels[-1, -1] = 1, 2  # far apart: a rare and a common class are met alike
    labels[5:9, 20:32] = 1
    draw = training.class_balanced_in(labels, np.ones(shape, np.float32), 50)
    rng = np.random.default_rng(0)
    corner = 0
    for _ in range(200):
        window = training.random_window(scene, draw, rng)
        sides = [s.stop - s.start for s in window]
        assert sides == [min(16, n) for n in shape]
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(window, shape, strict=True))
        pixels, classes = draw(rng, window)
        np.testing.assert_array_equal(labels[window].ravel()[pixels], classes + 1)
        corner += labels[window][-1, -1] == 2
    assert 60 < corner < 140
    whole_scene = scene._replace(tile=1200)
    assert training.random_window(whole_scene, draw, rng) == training.WHOLE


def test_pixels_inside_a_window():
    image = np.arange(6 * 9).reshape(6, 9)
    pixels = np.array([0, 12, 13, 30, 53])
    window = (slice(1, 4), slice(3, 6))
    mask, places = training.inside(window, image.shape, pixels)
    np.testing.assert_array_equal(image[window].ravel()[places], pixels[mask])
    assert mask.tolist() == [False, True, True, True, False]
    assert training.inside(training.WHOLE, image.shape, pixels)[1] is pixels


@pytest.mark.parametrize("shape", [(40, 70), (9, 70), (17, 16)])
def test_predicted_tiles_are_blended_without_seams(monkeypatch, shape):
    """A network that copies its input gives the scene back; one that marks edges shows no seam."""
    features = torch.rand(1, 2, *shape)
    scene, asked = tiled(features, 16)
    monkeypatch.setattr(training, "predict", lambda model, seen: seen.numpy())
    found = training.predict_scene(None, scene)
    np.testing.assert_allclose(found, features[0].numpy(), atol=1e-6)
    assert all(s.stop - s.start <= 16 for window in asked for s in window)

    def edges(model, seen):
        out = np.zeros(seen.shape, np.float32)
        out[:, :, [0, -1]] = 1
        return out

    monkeypatch.setattr(training, "predict", edges)
    if shape[1] > 16:
        assert training.predict_scene(None, scene)[:, :, 1:-1].max() < 0.25


def test_tiles_fit_into_memory():
    assert training.fitting_tile(102, (1096, 715)) == 1096  # Pavia Centre is seen whole
    assert training.fitting_tile(51, (1973, 3975)) < 1100  # AeroRIT is not
    for bands in (10, 100, 400):
        side = training.fitting_tile(bands, (10_000, 10_000))
        assert 400 < side < 1100
        assert training.fitting_tile(bands, (side, side)) == side


def test_a_large_scene_stays_on_disk(tmp_path):
    features = np.random.default_rng(0).random((3, 20, 30), np.float32)
    with new_store(tmp_path / "f.zarr", step="test", settings={}, inputs=[]) as group:
        write_array(group, "features", features, ("band", "y", "x"))
        write_array(group, "nodata", np.zeros((20, 30), bool), ("y", "x"))
    store = open_store(tmp_path / "f.zarr")
    cpu = torch.device("cpu")
    small = training.open_scene(store, None, cpu)
    assert small.whole
    np.testing.assert_array_equal(small.read(training.WHOLE)[0], features)
    large = training.open_scene(store, 16, cpu)
    assert not large.whole
    window = (slice(2, 18), slice(5, 21))
    np.testing.assert_array_equal(large.read(window)[0], features[:, 2:18, 5:21])


def test_rounds_are_the_same_for_the_same_generator():
    ends = []
    for _ in range(2):
        model, optimizer = small_model()
        one_round(model, optimizer, np.random.default_rng(3))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_a_loss_that_is_not_finite_stops_the_training():
    model, optimizer = small_model()
    with pytest.raises(FloatingPointError, match="learning rate"):
        training.train_round(
            model,
            optimizer,
            whole(torch.rand(1, 5, 8, 8)),
            anywhere,
            lambda logits, _: {"random": (1.0, logits.sum() * float("nan"))},
            rates=[1e-3],
            noise=0,
            rng=np.random.default_rng(0),
            title="test",
        )


def test_state_goes_on_bit_for_bit(tmp_path):
    model, optimizer = small_model()
    one_round(model, optimizer, np.random.default_rng(1))
    labels, rows = np.ones((9, 14), np.uint8), [{"round": 1, "stage": "warmup"}]
    training.save_state(tmp_path / "s.safetensors", model, optimizer, labels, rows, "mark")
    one_round(model, optimizer, np.random.default_rng(2))

    again, adam = small_model(seed=9)
    found = training.resume(tmp_path / "s.safetensors", "mark", again, adam)
    np.testing.assert_array_equal(found[0], labels)
    assert found[1] == rows
    one_round(again, adam, np.random.default_rng(2))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path):
    model, optimizer = small_model()
    path = tmp_path / "s.safetensors"
    assert training.resume(path, "mark", model, optimizer) is None
    training.save_state(path, model, optimizer, np.ones((2, 2), np.uint8), [{"round": 1}], "other")
    assert training.resume(path, "mark", model, optimizer) is None
    path.write_bytes(b"no safetensors")
    assert training.resume(path, "mark", model, optimizer) is None


def test_a_damaged_state_is_named(tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"no safetensors")
    with pytest.raises(UserError, match=r"s\.safetensors"):
        training.load_state(path, *small_model())


def test_fingerprint_depends_on_settings_and_inputs(tmp_path):
    file = tmp_path / "input"
    file.write_text("a")
    marks = {
        training.fingerprint("refine", {"seed": 0}, [file]),
        training.fingerprint("refine", {"seed": 1}, [file]),
    }
    file.write_text("b")
    marks.add(training.fingerprint("refine", {"seed": 0}, [file]))
    assert len(marks) == 3


def test_agreement_counts_pixels_with_data():
    labels = np.array([[1, 2], [0, 1]], np.uint8)
    assert training.agreement(labels, np.array([[1, 1], [3, 1]], np.uint8)) == pytest.approx(2 / 3)
    assert np.isnan(training.agreement(labels, None))
