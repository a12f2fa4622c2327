import functools
import hashlib
import http.server
import threading

import huggingface_hub
import pytest
from tiny_clip import same_weights

from special_steps.clip.model import load_clip
from special_steps.core.errors import UserError


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


# --- downloads ---------------------------------------------------------------------------------


def test_tag_is_downloaded_from_the_hub_once(tiny, server, hub, publish):
    address, asked = server
    hub(address)
    publish(mine={"hf_hub": "org/tiny/", "mean": (0.1,) * 3, "std": (0.2,) * 3})
    clip = load_clip("tiny", "mine")
    assert ("GET", "/org/tiny/resolve/main/open_clip_model.safetensors") in asked
    assert same_weights(clip, tiny)
    assert (clip.mean, clip.std) == ((0.1,) * 3, (0.2,) * 3)
    assert not clip.model.training
    before = [a for a in asked if a[0] == "GET"]
    load_clip("tiny", "mine")
    assert [a for a in asked if a[0] == "GET"] == before


def test_tag_is_downloaded_from_a_url(tiny, server, publish, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    publish(mine={"url": f"{server[0]}/models/tiny.pt"})
    assert same_weights(load_clip("tiny", "mine"), tiny)


def test_no_connection_is_one_clear_error(tiny, hub, publish, monkeypatch):
    hub("http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again, and again
    publish(mine={"hf_hub": "org/tiny/"})
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


def test_local_copies_of_published_weights_are_known(tiny, publish, tmp_path):
    digest = hashlib.sha256((tmp_path / "tiny.pt").read_bytes()).hexdigest()
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-tiny.pt"
    publish(openai={"url": url, "quick_gelu": True})
    with pytest.raises(UserError, match="use tiny-quickgelu"):
        load_clip("tiny", str(tmp_path / "tiny.pt"))
    load_clip("tiny-quickgelu", str(tmp_path / "tiny.pt"))
    url = f"https://github.com/mlfoundations/open_clip/releases/download/v0/tiny-{digest[:8]}.pt"
    publish(laion={"url": url})
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
    ],
)
def test_unknown_names(model, weights, message):
    with pytest.raises(UserError, match=message):
        load_clip(model, weights)
