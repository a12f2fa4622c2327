import functools
import hashlib
import http.server
import json
import logging
import pickle
import threading
import warnings

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_clip import CONVNEXT, TEXT, config_of, random_clip, random_state

from special_steps.clip import model as clip_model
from special_steps.clip.model import load_clip, read_state
from special_steps.core.errors import UserError


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Registers the models tiny and tiny-quickgelu with open_clip; returns their weights' path."""
    config = config_of()
    configs = {"tiny": config, "tiny-quickgelu": config | {"quick_gelu": True}}
    for name, each in configs.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, each)
    state = random_state(config)
    save_file(state, tmp_path / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "tiny.pt")
    return tmp_path / "open_clip_model.safetensors"


def tags(monkeypatch, **by_tag):
    for name in ("tiny", "tiny-quickgelu"):
        own = {t: c for t, c in by_tag.items() if name == "tiny" or c.get("quick_gelu")}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, own)


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path by HTTP; yields the address and the list of requested paths."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            asked.append((self.command, path))
            return super().translate_path("/" + path.rsplit("/", 1)[-1])

        def end_headers(self):  # what the Hugging Face client wants to know
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", "0" * 40)
            super().end_headers()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lets the Hugging Face client ask another address, with a cache of its own."""

    def ask(address):
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    return ask


def same(clip, path):
    state = read_state(path)
    found = clip.model.state_dict()
    return all(torch.equal(found[k], v) for k, v in state.items())


# --- downloads ---------------------------------------------------------------------------------


def test_tag_is_downloaded_from_the_hub_once(tiny, server, hub, monkeypatch):
    address, asked = server
    hub(address)
    tags(monkeypatch, mine={"hf_hub": "org/tiny/", "mean": (0.1,) * 3, "std": (0.2,) * 3})
    clip = load_clip("tiny", "mine")
    assert ("GET", "/org/tiny/resolve/main/open_clip_model.safetensors") in asked
    assert same(clip, tiny)
    assert (clip.mean, clip.std) == ((0.1,) * 3, (0.2,) * 3)
    assert not clip.model.training
    before = [a for a in asked if a[0] == "GET"]
    load_clip("tiny", "mine")
    assert [a for a in asked if a[0] == "GET"] == before


def test_tag_is_downloaded_from_a_url(tiny, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tags(monkeypatch, mine={"url": f"{server[0]}/models/tiny.pt"})
    assert same(load_clip("tiny", "mine"), tiny)


def test_no_connection_is_one_clear_error(tiny, hub, monkeypatch):
    hub("http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again, and again
    tags(monkeypatch, mine={"hf_hub": "org/tiny/"})
    with pytest.raises(
        UserError, match="can't download weights 'mine' of model tiny from org/tiny"
    ):
        load_clip("tiny", "mine")


def test_real_tag_reaches_the_real_address(hub, server):
    """The names in open_clip's table lead to requests of the right files."""
    address, asked = server
    hub(address)
    with pytest.raises(UserError, match="can't download weights 'openai'"):
        load_clip("ViT-B-32-quickgelu", "openai")
    folder = "/timm/vit_base_patch32_clip_224.openai/resolve/main/"
    assert any(path == folder + "open_clip_model.safetensors" for _, path in asked)


# --- names and pairs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "weights", "right"),
    [
        ("ViT-B-16", "openai", "ViT-B-16-quickgelu"),
        ("ViT-L/14", "openai", "ViT-L-14-quickgelu"),
        ("RN50", "yfcc15m", "RN50-quickgelu"),
        ("ViT-H-14", "dfn5b", "ViT-H-14-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_wrong_activation_is_refused_with_the_right_name(model, weights, right):
    with pytest.raises(UserError, match=f"use {right}$"):
        load_clip(model, weights)


def test_local_copies_of_published_weights_are_known(tiny, tmp_path, monkeypatch):
    digest = hashlib.sha256((tmp_path / "tiny.pt").read_bytes()).hexdigest()
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-tiny.pt"
    tags(monkeypatch, openai={"url": url, "quick_gelu": True})
    with pytest.raises(UserError, match="use tiny-quickgelu"):
        load_clip("tiny", str(tmp_path / "tiny.pt"))
    load_clip("tiny-quickgelu", str(tmp_path / "tiny.pt"))
    url = f"https://github.com/mlfoundations/open_clip/releases/download/v0/tiny-{digest[:8]}.pt"
    tags(monkeypatch, laion={"url": url})
    with pytest.raises(UserError, match=r"use tiny$"):
        load_clip("tiny-quickgelu", str(tmp_path / "tiny.pt"))


def test_file_names_give_a_hint(tiny, tmp_path):
    path = tmp_path / "tiny-openai.safetensors"
    path.write_bytes(tiny.read_bytes())
    with pytest.raises(UserError, match="use tiny-quickgelu"):
        load_clip("tiny", str(path))
    load_clip("tiny-quickgelu", str(path))


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("vit-b-61", "openai", "unknown CLIP model 'vit-b-61', did you mean ViT-B-16"),
        ("qqq", None, "unknown CLIP model 'qqq'; give bundled"),
        ("ViT-B-16", None, "needs weights: one of openai, "),
        (
            "ViT-B-16",
            "laion2b",
            "unknown weights 'laion2b' for model ViT-B-16, did you mean laion2b_",
        ),
        ("ViT-B-16", "weights/mine.pt", "weights/mine.pt: no such checkpoint file"),
        ("bundled", "openai", "bundled has its own weights"),
        ("none.json", "x.pt", "none.json: not a readable"),
        ("none.json", None, "none.json: give the path"),
    ],
)
def test_unknown_names(model, weights, message):
    with pytest.raises(UserError, match=message):
        load_clip(model, weights)


# --- checkpoints -------------------------------------------------------------------------------


def test_checkpoint_formats(tiny, tmp_path):
    assert same(load_clip("tiny", str(tiny)), tiny)
    state = {f"module.{k}": v.half() for k, v in read_state(tiny).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "run.pt")
    clip = load_clip("tiny", str(tmp_path / "run.pt"))
    assert {p.dtype for p in clip.model.parameters()} == {torch.float32}
    weight = state["module.visual.conv1.weight"].float()
    assert torch.equal(clip.model.visual.conv1.weight, weight)
    assert clip.logit_scale == 50


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_and_empty_checkpoints(tiny, tmp_path, suffix):
    whole = (tiny if suffix == ".safetensors" else tmp_path / "tiny.pt").read_bytes()
    for size in (0, 5, 1000, len(whole) // 2, len(whole) - 10):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut") as error:
            load_clip("tiny", str(path))
        assert "\n" not in str(error.value)


def test_pickles_are_not_executed(tiny, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pt", "plain.pt"):
        with pytest.raises(UserError, match="read safely"):
            load_clip("tiny", str(tmp_path / name))
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_another_model(tiny, tmp_path):
    state = read_state(tiny)
    key = "visual.conv1.weight"
    changes = {
        "missing": {k: v for k, v in state.items() if k != key},
        "extra": state | {"visual.other": torch.ones(1)},
        "shape": state | {key: torch.ones(32, 3, 4, 4)},
        "positions": state | {"visual.positional_embedding": torch.ones(10, 32)},
        "text": state | {"positional_embedding": torch.ones(77, 32)},
        "nan": state | {key: torch.full_like(state[key], torch.nan)},
        "list": [1, 2],
        "objects": {"a": 1},
        "nothing": {},
    }
    for name, content in changes.items():
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        with pytest.raises(UserError, match=name) as error:
            load_clip("tiny", str(path))
        assert "\n" not in str(error.value), name


def test_torchscript_is_opened_only_when_published(tiny, tmp_path, monkeypatch):
    class Holder(torch.nn.Module):
        def forward(self, x: int) -> int:
            return x

    holder = Holder()
    for key, value in read_state(tiny).items():
        *folders, leaf = key.split(".")
        module = holder
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, Holder())
            module = getattr(module, folder)
        module.register_buffer(leaf, value)
    path = tmp_path / "archive.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, OpenAI's files remain
        torch.jit.save(torch.jit.script(holder), path)
        with pytest.raises(UserError, match="not OpenAI's"):
            load_clip("tiny", str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-tiny.pt"
        tags(monkeypatch, openai={"url": url, "quick_gelu": True})
        assert same(load_clip("tiny-quickgelu", str(path)), tiny)


# --- config files and the bundled model --------------------------------------------------------


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
    clip = load_clip()
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
        load_clip()
    weights.unlink()
    with pytest.raises(UserError, match="weights are missing"):
        load_clip()


def test_real_bundle_loads():
    if not (clip_model.BUNDLED / "weights.safetensors").is_file():
        pytest.skip("the bundled weights are not in this copy")
    clip = load_clip()
    assert not clip.model.training
    assert clip.model.visual.trunk.forward_features(torch.rand(1, 3, 64, 64)).shape[2:] == (4, 4)
    assert 5 < clip.logit_scale < 101
    assert clip.templates


def test_cpu_is_noted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    random_clip(tmp_path)
    with caplog.at_level(logging.INFO, "special"):
        load_clip(str(tmp_path / "config.json"), str(tmp_path / "weights.safetensors"))
    assert "runs on the CPU" in caplog.text
