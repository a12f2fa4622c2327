import logging

import numpy as np
import pytest
from tiny_clip import config_of, load, random_clip, random_state
from torch.nn import functional as F

from special_steps.clip.prompts import (
    AERIAL,
    TEMPLATES,
    Phrases,
    embed,
    read_phrases,
    template_set,
    write_phrases,
)
from special_steps.core.errors import UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return random_clip(tmp_path_factory.mktemp("clip"))


def test_template_sets(clip):
    assert len(TEMPLATES["imagenet"]) == 80
    assert all(t.count("{}") == 1 for t in TEMPLATES["imagenet"])
    assert template_set("imagenet", clip)[0] == "a bad photo of a {}."
    assert template_set(None, clip) == TEMPLATES["imagenet"]
    assert template_set(None, clip._replace(templates=["{}!"])) == ["{}!"]
    assert template_set(None, clip._replace(templates="aerial")) == list(AERIAL)
    assert template_set(["a {}"], clip) == ["a {}"]
    for wrong in ("ariel", ["a photo"], []):
        with pytest.raises(UserError, match="template"):
            template_set(wrong, clip)


def test_embedding_is_the_normalised_mean_of_normalised_sentences(clip):
    rows = embed(clip, ["water", "bare {soil}"], ["{}", "a photo of {}"])
    sentences = ["bare {soil}", "a photo of bare {soil}"]
    each = F.normalize(clip.model.encode_text(clip.tokenizer(sentences)), dim=1)
    assert rows.shape == (2, 24)
    assert rows.dtype == np.float32
    assert np.abs(rows[1] - F.normalize(each.mean(0), dim=0).numpy()).max() < 1e-6
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6


def test_long_phrases_are_named(clip, caplog):
    long = "a field of maize with several rows of old apple trees in between, seen from above"
    with caplog.at_level(logging.WARNING, "special"):
        embed(clip, ["water"], ["{}", "an aerial photo of {}"])
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "special"):
        embed(clip, ["water", long], ["{}", "an aerial photo of {}"])
    assert long in caplog.text
    assert "16 tokens in 2 of 2" in caplog.text


def test_phrase_that_just_fits_is_not_named(clip, caplog):
    with caplog.at_level(logging.WARNING, "special"):
        embed(clip, ["a " * 14], ["{}"])  # 14 tokens, start and end: 16
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "special"):
        embed(clip, ["a " * 15], ["{}"])
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "phrase", ["Wüste", "水体", "forêt 🌲", "a/b: 'c' \"d\" %s \\n", "x" * 3000]
)
def test_unusual_phrases(clip, phrase):
    assert np.isfinite(embed(clip, [phrase], TEMPLATES["imagenet"])).all()


def test_tokenizer_of_another_model_is_an_error(tmp_path):
    config = config_of()
    config["text_cfg"] = config["text_cfg"] | {"vocab_size": 64}
    clip = load(config, random_state(config), tmp_path)
    with pytest.raises(UserError, match="vocabulary of 64"):
        embed(clip, ["water"], ["{}"])


def test_file_holds_what_was_written(tmp_path):
    rows = np.eye(3, 8, dtype=np.float32)
    names = ["water", "bare soil"]
    written = Phrases(rows, np.array([0, 0, 1]), names, ["water", "Fluß", "bare soil"], "tiny x")
    write_phrases(tmp_path / "text.npz", written)
    found = read_phrases(tmp_path / "text.npz")
    assert (found.embeddings == rows).all()
    assert found.class_index.tolist() == [0, 0, 1]
    assert found[2:] == written[2:]
