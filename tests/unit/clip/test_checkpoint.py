import hashlib
import pickle

import pytest
import torch
from tiny_clip import same_weights

from special_steps.clip.checkpoint import read_state
from special_steps.clip.model import load_clip
from special_steps.core.errors import UserError


def test_checkpoint_formats(tiny, tmp_path):
    assert same_weights(load_clip("tiny", str(tiny)), tiny)
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


def archive(state, path):
    """Writes tensors as OpenAI publishes them: a TorchScript archive."""

    class Holder(torch.nn.Module):
        def forward(self, x: int) -> int:
            return x

    holder = Holder()
    for key, value in state.items():
        *folders, leaf = key.split(".")
        module = holder
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, Holder())
            module = getattr(module, folder)
        module.register_buffer(leaf, value)
    torch.jit.save(torch.jit.script(holder), path)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, OpenAI's files remain
def test_torchscript_is_opened_only_when_it_is_openais(tiny, publish, tmp_path):
    path = tmp_path / "archive.pt"
    archive(read_state(tiny), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="not OpenAI's"):
        load_clip("tiny", str(path))
    # Eight digits are in the names of other published files: not enough to trust a program.
    url = f"https://github.com/mlfoundations/open_clip/releases/download/v0/tiny-{digest[:8]}.pt"
    publish(other={"url": url, "quick_gelu": True})
    with pytest.raises(UserError, match="not OpenAI's"):
        load_clip("tiny-quickgelu", str(path))
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-tiny.pt"
    publish(openai={"url": url, "quick_gelu": True})
    assert same_weights(load_clip("tiny-quickgelu", str(path)), tiny)
