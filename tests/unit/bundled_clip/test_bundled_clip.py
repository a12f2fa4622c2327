"""The bundled CLIP: what ships, and the code that trained it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from special_steps.bundled_clip.training import aerial, image_tower, mosaics, parts, phrases, words
from special_steps.bundled_clip.training import evaluate as evaluation
from special_steps.bundled_clip.training import model as bundled
from special_steps.clip.encoder import make_encoder
from special_steps.clip.model import BUNDLED, load_clip
from special_steps.clip.prompts import Phrases
from special_steps.clip.upsample import make_upsampler
from special_steps.clip_scale import scale_probabilities
from special_steps.core.settings import default_of

WEIGHTS = BUNDLED / "weights.safetensors"
LIST = Path(__file__).parents[2] / "data" / "class_phrases.txt"


@pytest.fixture(scope="module")
def clip():
    return bundled.load()


@pytest.fixture(scope="module")
def similarity(clip):
    """Cosine of two class names, by the templates that ship."""
    return lambda a, b: float(evaluation.class_vectors(*clip, [a, b]).prod(0).sum())


def test_it_is_small_and_as_published():
    assert WEIGHTS.stat().st_size < 32e6
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert (BUNDLED / "weights.sha256").read_text().split()[0] == digest


def test_saving_it_again_gives_the_same_file(clip, tmp_path):
    bundled.save(clip[0], tmp_path)
    assert (tmp_path / WEIGHTS.name).read_bytes() == WEIGHTS.read_bytes()
    assert (tmp_path / "weights.sha256").read_text() == (BUNDLED / "weights.sha256").read_text()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_weight_too_large_for_float16_is_not_saved(tmp_path):
    model, _ = bundled.build()
    with torch.no_grad():
        model.text_projection[0, 0] = 1e6
    with pytest.raises(ValueError, match="float16"):
        bundled.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_continues_from_its_checkpoint(tmp_path):
    """Weights, their averages and the optimizer's moments, as they were."""

    def fresh():
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(module.parameters(), 0.1)
        average = {k: v.detach().clone() for k, v in module.state_dict().items()}
        return module, average, optimizer

    def train(module, optimizer):
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    module, average, optimizer = fresh()
    train(module, optimizer)
    average["weight"] += 1
    meta, path = {"seconds": 2.0, "step": 1, "finishing": False}, tmp_path / "image.safetensors"
    image_tower.save_checkpoint(path, module.state_dict(), average, optimizer, meta)
    again, other, restored = fresh()
    with torch.no_grad():
        found = image_tower.load_checkpoint(path, again.state_dict(), other, restored)
    assert found == meta
    assert torch.equal(other["weight"], average["weight"])
    train(module, optimizer)
    train(again, restored)
    assert torch.equal(again.weight, module.weight)


def test_weights_are_finite_float16():
    with safe_open(WEIGHTS, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118 (a file handle, not a dict)
            tensor = stored.get_tensor(key)
            assert torch.isfinite(tensor).all(), key
            assert tensor.dtype == torch.float16 or not tensor.is_floating_point(), key


def test_it_loads_in_upstream_open_clip_by_its_registry(tmp_path):
    """A user can take the two files elsewhere: open_clip needs nothing of ours."""
    config = json.loads((BUNDLED / "model_config.json").read_text())
    (tmp_path / "special-bundled.json").write_text(json.dumps(config["model_cfg"]))
    open_clip.add_model_config(tmp_path / "special-bundled.json")
    preprocess = config["preprocess_cfg"]
    model, _, transform = open_clip.create_model_and_transforms(
        "special-bundled", str(WEIGHTS), image_mean=preprocess["mean"], image_std=preprocess["std"]
    )
    model.eval()
    ours, tokenizer = bundled.load()
    text = tokenizer(["water", "an aerial photo of trees"])
    with torch.inference_mode():
        assert torch.allclose(model.encode_text(text), ours.encode_text(text), atol=1e-5)
    assert callable(transform)


def test_embeddings_have_the_promised_shape(clip):
    model, tokenizer = clip
    with torch.inference_mode():
        text = model.encode_text(tokenizer(["water", "bare soil"]))
        image = model.encode_image(torch.rand(2, 3, 224, 224) * 2 - 1)
    assert text.shape == image.shape == (2, 384)
    assert torch.isfinite(text).all() and torch.isfinite(image).all()


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("lake", "water", "asphalt"),
        ("woodland", "trees", "water"),
        ("lawn", "grass", "roof"),
        ("street", "road", "forest"),
        ("bare ground", "soil", "sea"),
        ("house", "building", "river"),
        ("wheat", "crops", "car"),
    ],
)
def test_text_ranks_class_names_sensibly(similarity, word, near, far):
    assert similarity(word, near) > similarity(word, far)


def test_cut_padding_does_not_change_text(clip):
    model, tokenizer = clip
    with torch.inference_mode():
        whole = model.encode_text(tokenizer(["a satellite image of trees"]), normalize=True)
    cut = evaluation.embed(model, tokenizer, ["a satellite image of trees"])
    assert torch.allclose(whole, cut, atol=1e-5)


def test_dense_trunk_shares_parameters_and_doubles_the_grid(clip):
    model, _ = clip
    dense = image_tower.dense_trunk(model.visual.trunk)
    assert {id(p) for p in dense.parameters()} == {id(p) for p in model.visual.trunk.parameters()}
    with torch.inference_mode():
        z = image_tower.dense_features(dense, model.visual.head, torch.rand(1, 3, 96, 64))
    assert z.shape == (1, 384, 6, 4)


def test_dense_cells_of_plain_colours(clip):
    """Half smooth dark blue, half smooth and bright: water and sand, each on its side."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.01, (128, 128, 3)).astype(np.float32)
    image[:, :64] += np.array([0.05, 0.13, 0.2], np.float32)
    image[:, 64:] += np.array([0.8, 0.7, 0.5], np.float32)
    model, tokenizer = clip
    image = torch.from_numpy(image).clamp(0, 1).permute(2, 0, 1)[None]
    text = evaluation.class_vectors(model, tokenizer, ["water", "sand"])
    trunk = image_tower.dense_trunk(model.visual.trunk)
    p = sum(evaluation.dense_probabilities(model, trunk, image, text, scale) for scale in (1, 2))
    assert (p[0, :, :56] > 1).float().mean() > 0.9
    assert (p[1, :, 72:] > 1).float().mean() > 0.9


def test_evaluation_does_what_the_workflow_does_in_one_window(clip):
    model, tokenizer = clip
    image = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(image, (112, 112), mode="bicubic").clamp(0, 1)
    text = evaluation.class_vectors(model, tokenizer, ["water", "trees", "bare soil"])
    trunk = image_tower.dense_trunk(model.visual.trunk)
    found = evaluation.dense_probabilities(model, trunk, image, text, 2)
    ours = load_clip("bundled", None)
    names = ["water", "trees", "bare soil"]
    strips = scale_probabilities(
        lambda first, last: image[0, :, first:last].numpy(),
        (112, 112),
        make_encoder(ours, "segearth", "fp32"),
        Phrases(text.numpy(), np.arange(3), names, names, ours.name),
        make_upsampler(default_of("clips.NAME.upsampling"), ours.mean, ours.std, None),
        scale=2,
        mean=ours.mean,
        std=ours.std,
        logit_scale=ours.logit_scale,
        window=224,
        stride=112,
        global_bias=default_of("clips.NAME.global_bias"),
    )
    assert np.abs(np.concatenate(list(strips), 1) - found.numpy()).max() < 0.02
    assert found.std() > 0.05


def test_the_strided_trunk_computes_the_odd_cells_of_the_dense_one(clip):
    """Why training may run at stride 32 for use at 16."""
    model, _ = clip
    x = torch.rand(1, 3, 192, 192)
    with torch.inference_mode():
        dense = image_tower.dense_features(
            image_tower.dense_trunk(model.visual.trunk), model.visual.head, x
        )
        sparse = image_tower.dense_features(model.visual.trunk, model.visual.head, x)
    assert dense.shape[2:] == (12, 12) and sparse.shape[2:] == (6, 6)
    assert torch.allclose(dense[:, :, 1::2, 1::2], sparse, atol=1e-4)


def test_proportions_and_names_cover_each_other():
    table = aerial.proportions()
    assert np.allclose(table.sum(1), 1)
    assert (table.sum(0) > 0).all()
    assert set(words.PART_WORDS) == set(aerial.PARTS)
    assert len(mosaics.WEIGHTS) == len(aerial.PARTS)
    grouped = np.bincount(words.scene_group() + 1, minlength=len(words.SCENE_WORDS) + 1)
    assert (grouped[1:] > 0).all()


def test_corpus_is_lower_case_unique_and_partly_held_out():
    corpus = phrases.corpus(["house", "music"])
    assert len(corpus) == len(set(corpus))
    assert all(p == p.lower() and "{" not in p for p in corpus)
    share = np.mean([phrases.held_out(p) for p in corpus])
    assert 0.01 < share < 0.03


def test_class_phrase_list_is_what_users_would_type():
    lines = LIST.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 200
    assert all(p == p.strip().lower() and len(p.split()) <= 4 for p in lines)


@pytest.fixture(scope="module")
def bank():
    """A bank of noise images whose cells are all one part each, made without any data."""
    rng = np.random.default_rng(0)
    n = 2 * len(aerial.SCENES)
    images = rng.integers(0, 255, (n, aerial.SIDE, aerial.SIDE, 3), np.uint8)
    scenes = np.arange(n) % len(aerial.SCENES)
    data = aerial.Aerial(images, scenes, np.zeros(n, bool))
    cells = np.zeros((n, parts.GRID, parts.GRID, len(aerial.PARTS)), np.uint8)
    cells[np.arange(n), :, :, np.arange(n) % len(aerial.PARTS)] = 255
    return mosaics.make_bank(data, cells, held_out=False)


def test_samples_are_valid_and_repeatable(bank):
    for i in range(24):
        one = mosaics.draw_sample(bank, np.random.default_rng(i), 96, 16)
        two = mosaics.draw_sample(bank, np.random.default_rng(i), 96, 16)
        assert one.image.shape == (3, 96, 96) and one.fractions.shape == (len(aerial.PARTS), 6, 6)
        assert torch.equal(one.image, two.image) and torch.equal(one.fractions, two.fractions)
        assert one.image.min() >= 0 and one.image.max() <= 1
        assert one.fractions.sum(0).max() <= 1 + 1e-5


@pytest.fixture(scope="module")
def table():
    """Embeddings at random of all words that training draws."""
    every = words.all_words()
    vectors = F.normalize(torch.randn(len(every), 2, 384), dim=-1)
    return words.Words({w: i for i, w in enumerate(every)}, vectors)


def test_both_shapes_of_batches_teach(bank, table):
    for shape in (image_tower.FIRST, image_tower.LAST):
        batch = image_tower.make_batch(bank, table, 0, 0, shape)
        size = shape.size // shape.label
        assert batch.image.shape == (shape.samples, 3, shape.size, shape.size)
        assert batch.fractions.shape == (shape.samples, len(aerial.PARTS), size, size)
        cells = shape.size // image_tower.STRIDE
        features = torch.randn(shape.samples, 384, cells, cells, requires_grad=True)
        image_tower.losses(features, batch)[0].backward()
        assert (features.grad.abs().sum(1) > 0).float().mean() > 0.5
        # Features that are the names' own embeddings are right about nearly every sure label.
        part = F.adaptive_avg_pool2d(batch.fractions, cells).argmax(1)
        column = batch.column.gather(1, part.flatten(1))
        own = batch.text.gather(1, column[..., None].expand(-1, -1, 384))
        own = own.mT.unflatten(2, (cells, cells))
        assert image_tower.losses(own, batch)[3] > 0.7


def test_candidates_always_name_what_is_present(bank, table):
    rng = np.random.default_rng(0)
    for _ in range(50):
        present = rng.random(len(aerial.PARTS)) < 0.3
        c = words.draw_candidates(present, table, rng)
        assert c.open[c.column[torch.from_numpy(present)]].all()


def test_training_command_asks_for_missing_data_clearly(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"aid\.tar.*--aerial"):
        aerial.load(tmp_path)


def test_held_out_scenes_are_recognised(clip, shared):
    """A sample of the figure that evaluate.py measures in full: at least 0.7 here, 12 words."""
    import io
    import tarfile

    from PIL import Image

    group, images, truth = words.scene_group(), [], []
    with tarfile.open(shared / "data" / "aerial" / "ucm.tar") as tar:
        for member in tar:
            if not member.isfile() or not aerial.is_held_out(member.name):
                continue
            scene = aerial.SCENE_NAMES.index(member.name.rsplit("/", 1)[0])
            if 0 <= group[scene] < len(words.EVALUATION_WORDS):
                with Image.open(io.BytesIO(tar.extractfile(member).read())) as picture:
                    images.append(np.asarray(picture.convert("RGB").resize((224, 224))))
                truth.append(group[scene])
    model, tokenizer = clip
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        z = torch.cat([model.encode_image(part, normalize=True) for part in x.split(32)])
    text = evaluation.class_vectors(model, tokenizer, words.EVALUATION_WORDS)
    assert ((z @ text.T).argmax(1).numpy() == np.array(truth)).mean() >= 0.7


def test_evaluate_refuses_scenes_for_weights_that_are_not_installed(tmp_path, monkeypatch, capsys):
    line = f"evaluate --aerial a --cache c --weights {tmp_path} --scenes samson.yaml"
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit) as stop:
        evaluation.main()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message and "leave --weights out" in message
