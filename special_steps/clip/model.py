"""CLIP models: the bundled one, open_clip's by name and tag, or that of a config file with its checkpoint."""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import timm
import torch

from special_steps.clip import registry
from special_steps.clip.checkpoint import LOADING_ERRORS, load_weights
from special_steps.core.errors import UserError, one_line
from special_steps.core.tensors import find_device

log = logging.getLogger("special")

BUNDLED = Path(__file__).resolve().parent.parent / "bundled_clip"
PUBLISHED_LOGIT_SCALE = 50.0


class Clip(NamedTuple):
    """A loaded model and what its images and texts need."""

    model: open_clip.CLIP  # or CustomTextCLIP; in eval mode, float32, on `device`
    tokenizer: Callable[..., torch.Tensor]
    mean: tuple[float, ...]  # of images in [0, 1], by colour
    std: tuple[float, ...]
    logit_scale: float  # factor on cosines that suits the model
    templates: str | list[str] | None  # the model's own text templates, where its config has them
    device: torch.device
    name: str  # model and weights, as asked for


def load_clip(model: str, weights: str | None) -> Clip:
    """Load a CLIP model for inference, on the GPU when there is one.

    Args:
        model: "bundled"; an open_clip model name such as ViT-B-16-quickgelu; or the path of an
            open_clip config (.json).
        weights: an open_clip pretrained tag such as openai (downloaded once, then cached by
            huggingface_hub) or the path of a checkpoint (.safetensors, .pt, .bin); None for bundled.

    Raises:
        UserError: for unknown names, wrong pairs, failed downloads, and checkpoints that are broken
            or do not match the model.
    """
    if model == "bundled":
        if weights is not None:
            raise UserError(f"model bundled has its own weights; remove weights '{weights}'")
        net, config = _from_files(BUNDLED / "model_config.json", _bundled_weights())
        tokenizer = _tokenizer(config["model_cfg"])
    elif model.endswith(".json"):
        if weights is None:
            raise UserError(f"{model}: give the path of its checkpoint as weights")
        net, config = _from_files(Path(model), Path(weights))
        tokenizer = _tokenizer(config["model_cfg"])
    else:
        model = model.replace("/", "-")
        config, checkpoint = registry.find(model, weights)
        net = _build(config["model_cfg"], model)
        load_weights(net, checkpoint(), model)
        tokenizer = registry.tokenizer_of(model)
    if not all(torch.isfinite(p).all() for p in net.parameters()):
        raise UserError(
            f"{weights or model}: the checkpoint holds values that are not finite; fetch it again"
        )
    preprocess, dense = config.get("preprocess_cfg", {}), config.get("dense_cfg", {})
    scale = dense.get("logit_scale", PUBLISHED_LOGIT_SCALE)
    device = find_device()
    if device.type == "cpu":
        log.info("no GPU found: CLIP runs on the CPU")
    return Clip(
        net.eval().requires_grad_(False).to(device),
        tokenizer,
        tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD)),
        float(net.logit_scale.exp()) if scale == "model" else float(scale),
        dense.get("templates"),
        device,
        f"{model} {weights or ''}".strip(),
    )


def _bundled_weights() -> Path:
    """Path of the bundled weights, after a check of their SHA-256."""
    path, note = BUNDLED / "weights.safetensors", BUNDLED / "weights.sha256"
    if not (path.is_file() and note.is_file()):
        raise UserError(f"{path}: the bundled CLIP's weights are missing; reinstall the project")
    if registry.sha256(path) != note.read_text().split()[0]:
        raise UserError(f"{path}: does not match its SHA-256 in {note.name}; reinstall the project")
    return path


def _from_files(path: Path, checkpoint: Path) -> tuple[open_clip.CLIP, dict[str, Any]]:
    """The model of a config file with its checkpoint loaded, and the config.

    The file is open_clip's: either its open_clip_config.json (`model_cfg` and `preprocess_cfg`) or
    a bare model config. Our addition is `dense_cfg`: `output_stride` of a timm trunk (which
    open_clip can't express), `logit_scale` ("model" or a number) and `templates` (the name of a
    set, or a list).
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable open_clip config ({one_line(error)}); correct the path or file"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg", config), dict):
        raise UserError(f"{path}: not an open_clip config; it must be a JSON object")
    config = config if "model_cfg" in config else {"model_cfg": config}
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= config["model_cfg"].keys():
        raise UserError(f"{path}: an open_clip config needs embed_dim, vision_cfg and text_cfg")
    model = _build(config["model_cfg"], str(path))
    load_weights(model, checkpoint, str(path))
    stride = config.get("dense_cfg", {}).get("output_stride")
    if stride is not None:
        name = config["model_cfg"]["vision_cfg"]["timm_model_name"]
        trunk = timm.create_model(name, num_classes=0, output_stride=stride)
        trunk.load_state_dict(model.visual.trunk.state_dict())
        model.visual.trunk = trunk
    return model, config


def _build(config: dict[str, Any], name: str) -> open_clip.CLIP:
    """Make open_clip's model of a config, with random weights.

    open_clip.create_model would do the same, but warns that nothing is loaded.
    """
    config = copy.deepcopy(config)
    if "multimodal_cfg" in config:
        raise UserError(f"{name}: CoCa models have no dense features here; choose a CLIP model")
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    config["text_cfg"]["hf_model_pretrained"] = False
    try:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except (*LOADING_ERRORS, ImportError) as error:
        raise UserError(
            f"{name}: open_clip can't build this model ({one_line(error)}); choose another"
        ) from error


def _tokenizer(config: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """The tokenizer that a model config asks for (open_clip.get_tokenizer wants a name)."""
    text = config["text_cfg"]
    options = {"context_length": text.get("context_length", 77)} | text.get("tokenizer_kwargs", {})
    if "hf_tokenizer_name" in text:
        name, mode = text["hf_tokenizer_name"], text.get("tokenizer_mode")
        return open_clip.tokenizer.HFTokenizer(name, tokenizer_mode=mode, **options)
    return open_clip.SimpleTokenizer(**options)
