import hashlib
import json
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_clip import CONVNEXT, TEXT, config_of, random_clip, random_state

from special_steps.clip import model as clip_model
from special_steps.clip.checkpoint import read_state
from special_steps.clip.model import load_clip
from special_steps.clip.prompts import AERIAL, template_set
from special_steps.core.errors import UserError


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("bundled", "openai", "bundled has its own weights"),
        ("none.json", "x.pt", "none.json: not a readable"),
        ("none.json", None, "none.json: give the path"),
    ],
)
def test_wrong_pairs(model, weights, message):
    with pytest.raises(UserError, match=message):
        load_clip(model, weights)


def test_broken_configs(tiny, tmp_path):
    wrong = {
        "text": "{",
        "list": "[]",
        "parts": '{"embed_dim": 3}',
        "coca": json.dumps(config_of() | {"multimodal_cfg": {}}),
        "unknown": json.dumps(config_of(colour="blue")),
    }
    for name, content in wrong.items():
        path = tmp_path / f"{name}.json"
        path.write_text(content)
        with pytest.raises(UserError, match=f"{name}.json"):
            load_clip(str(path), str(tiny))


def bundle(folder, monkeypatch):
    """A model like the bundled one, with random weights."""
    vision = CONVNEXT | {"timm_model_name": "test_efficientnet", "timm_pool": "avg"}
    model_cfg = config_of(**vision) | {"text_cfg": TEXT | {"context_length": 12}}
    dense = {"output_stride": 16, "logit_scale": "model", "templates": ["{} from above"]}
    config = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "dense_cfg": dense,
    }
    (folder / "model_config.json").write_text(json.dumps(config))
    weights = folder / "weights.safetensors"
    save_file({k: v.half() for k, v in random_state(model_cfg).items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "weights.sha256").write_text(f"{digest}  weights.safetensors\n")
    monkeypatch.setattr(clip_model, "BUNDLED", folder)
    return weights


def test_bundled_follows_its_own_files(tmp_path, monkeypatch):
    weights = bundle(tmp_path, monkeypatch)
    clip = load_clip("bundled", None)
    assert (clip.mean, clip.std, clip.name) == ((0.5,) * 3, (0.5,) * 3, "bundled")
    assert clip.templates == ["{} from above"]
    assert clip.logit_scale == pytest.approx(float(read_state(weights)["logit_scale"].exp()), 1e-3)
    assert clip.tokenizer(["water"]).shape == (1, 12)
    trunk = clip.model.visual.trunk
    image = torch.rand(1, 3, 64, 64)
    assert trunk.forward_features(image).shape == (1, 256, 4, 4)  # stride 16, not 32
    plain = timm.create_model("test_efficientnet", num_classes=0).eval()
    plain.load_state_dict(trunk.state_dict())
    assert plain.forward_features(image).shape == (1, 256, 2, 2)


def test_damaged_bundle_is_refused(tmp_path, monkeypatch):
    weights = bundle(tmp_path, monkeypatch)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"does not match its SHA-256"):
        load_clip("bundled", None)
    weights.unlink()
    with pytest.raises(UserError, match="weights are missing"):
        load_clip("bundled", None)


def test_real_bundle_loads():
    if not (clip_model.BUNDLED / "weights.safetensors").is_file():
        pytest.skip("the bundled weights are not in this copy")
    clip = load_clip("bundled", None)
    assert not clip.model.training
    assert clip.model.visual.trunk.forward_features(torch.rand(1, 3, 64, 64)).shape[2:] == (4, 4)
    assert 5 < clip.logit_scale < 101
    assert template_set(None, clip) == list(AERIAL)


def test_cpu_is_noted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    random_clip(tmp_path)
    with caplog.at_level(logging.INFO, "special"):
        load_clip(str(tmp_path / "config.json"), str(tmp_path / "weights.safetensors"))
    assert "runs on the CPU" in caplog.text
