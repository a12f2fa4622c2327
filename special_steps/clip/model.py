"""Loading of CLIP models: open_clip's by name and tag, a local checkpoint, or the bundled one.

Nothing is unpickled: checkpoints are safetensors, or .pt files read with weights_only=True. The one TorchScript
archive that is read is OpenAI's own, recognised by its SHA-256.
"""

import copy
import difflib
import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from special_steps.core.errors import UserError

log = logging.getLogger("special")

BUNDLED = Path(__file__).resolve().parent.parent / "bundled_clip"
QUICK = "-quickgelu"
PUBLISHED_LOGIT_SCALE = 50.0
# What reading and loading a broken or foreign file raises, besides UserError.
BROKEN = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    StopIteration,
)


class Clip(NamedTuple):
    """A loaded model and what its images and texts need."""

    model: torch.nn.Module  # in eval mode, float32, on `device`
    tokenizer: Callable[..., torch.Tensor]
    mean: tuple[float, float, float]  # of images in [0, 1]
    std: tuple[float, float, float]
    logit_scale: float  # factor on cosines that suits the model
    templates: list[str] | None  # the model's own text templates, where its config has them
    device: torch.device
    name: str  # model and weights, as asked for


def load_clip(model: str = "bundled", weights: str | None = None) -> Clip:
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
        net, config = _from_config(BUNDLED / "model_config.json", _bundled_weights())
        tokenizer = _tokenizer(config["model_cfg"])
    elif model.endswith(".json"):
        if weights is None:
            raise UserError(f"{model}: give the path of its checkpoint as weights")
        net, config = _from_config(Path(model), Path(weights))
        tokenizer = _tokenizer(config["model_cfg"])
    else:
        model = model.replace("/", "-")
        net = _from_registry(model, weights)
        config, tokenizer = {}, _registry_tokenizer(model)
    if not all(torch.isfinite(p).all() for p in net.parameters()):
        raise UserError(f"{weights or model}: the checkpoint holds values that are not finite")
    dense = config.get("dense_cfg", {})
    scale = dense.get("logit_scale", PUBLISHED_LOGIT_SCALE)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if place.type == "cpu":
        log.info("no GPU found: CLIP runs on the CPU")
    preprocess = open_clip.get_model_preprocess_cfg(net)
    return Clip(
        net.eval().requires_grad_(False).to(place),
        tokenizer,
        tuple(preprocess["mean"]),
        tuple(preprocess["std"]),
        float(net.logit_scale.exp()) if scale == "model" else float(scale),
        dense.get("templates"),
        place,
        f"{model} {weights or ''}".strip(),
    )


# --- models from a config file -----------------------------------------------------------------


def _bundled_weights() -> Path:
    """Path of the bundled weights, after a check of their SHA-256."""
    path, note = BUNDLED / "weights.safetensors", BUNDLED / "weights.sha256"
    if not (path.is_file() and note.is_file()):
        raise UserError(f"{path}: the bundled CLIP's weights are missing; reinstall the project")
    if _sha256(path) != note.read_text().split()[0]:
        raise UserError(f"{path}: does not match its SHA-256 in {note.name}; reinstall the project")
    return path


def _from_config(path: Path, weights: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Build the model of a config file and load its checkpoint.

    The file is open_clip's: either its open_clip_config.json (`model_cfg` and `preprocess_cfg`) or
    a bare model config. Our addition is `dense_cfg`: `output_stride` of a timm trunk (which
    open_clip can't express), `logit_scale` ("model" or a number) and `templates`.
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable open_clip config ({_line(error)})") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg", config), dict):
        raise UserError(f"{path}: not an open_clip config; it must be a JSON object")
    config = config if "model_cfg" in config else {"model_cfg": config}
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= config["model_cfg"].keys():
        raise UserError(f"{path}: an open_clip config needs embed_dim, vision_cfg and text_cfg")
    model = _build(config["model_cfg"], str(path), config.get("preprocess_cfg", {}))
    _load_weights(model, weights, str(path))
    stride = config.get("dense_cfg", {}).get("output_stride")
    if stride is not None:
        name = config["model_cfg"]["vision_cfg"]["timm_model_name"]
        trunk = timm.create_model(name, num_classes=0, output_stride=stride)
        trunk.load_state_dict(model.visual.trunk.state_dict())
        model.visual.trunk = trunk
    return model, config


def _build(config: dict[str, Any], name: str, preprocess: dict[str, Any]) -> torch.nn.Module:
    """Make open_clip's model of a config, with random weights and with the preprocessing noted.

    open_clip.create_model would do the same, but warns that nothing is loaded.
    """
    config = copy.deepcopy(config)
    if "multimodal_cfg" in config:
        raise UserError(f"{name}: CoCa models have no dense features here; choose a CLIP model")
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    config["text_cfg"]["hf_model_pretrained"] = False
    try:
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except (*BROKEN, ImportError) as error:
        raise UserError(f"{name}: open_clip can't build this model ({_line(error)})") from error
    usual = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(model, usual | preprocess)
    return model


def _tokenizer(config: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """The tokenizer that a model config asks for (open_clip.get_tokenizer wants a name)."""
    text = config["text_cfg"]
    options = {"context_length": text.get("context_length", 77)} | text.get("tokenizer_kwargs", {})
    if "hf_tokenizer_name" in text:
        name, mode = text["hf_tokenizer_name"], text.get("tokenizer_mode")
        return open_clip.tokenizer.HFTokenizer(name, tokenizer_mode=mode, **options)
    return open_clip.SimpleTokenizer(**options)


# --- models of open_clip's registry ------------------------------------------------------------


def _from_registry(model: str, weights: str | None) -> torch.nn.Module:
    """Build open_clip's `model` and load `weights`, a pretrained tag or a local file."""
    if model not in open_clip.list_models():
        raise UserError(
            f"unknown CLIP model '{model}'{_close(model, open_clip.list_models())}; give bundled,"
            " an open_clip model name, or the path of an open_clip config ending in .json"
        )
    config = open_clip.get_model_config(model)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is None:
        raise UserError(f"model {model} needs weights: one of {', '.join(tags)}, or a file's path")
    if open_clip.is_pretrained_cfg(model, weights):
        cfg = open_clip.get_pretrained_cfg(model, weights)
        _check_activation(model, cfg, weights)
        net = _build(config, model, {key: cfg[key] for key in ("mean", "std") if key in cfg})
        _load_weights(net, Path(_download(model, weights)), model)
        return net
    if Path(weights).is_file():
        known = _published(Path(weights))
        if known is not None:
            _check_activation(model, known, weights)
        elif (
            _says_quick(weights) and not _quick(model) and model + QUICK in open_clip.list_models()
        ):
            raise UserError(
                f"{weights}: named like weights that need QuickGELU, which model {model} does not"
                f" have; use {model}{QUICK}, or rename the file if it really was trained without"
            )
        net = _build(config, model, {})
        _load_weights(net, Path(weights), model)
        return net
    if open_clip.is_pretrained_cfg(_twin(model), weights):  # e.g. laion2b with ViT-B-32-quickgelu
        raise UserError(f"weights '{weights}' don't go with model {model}: use {_twin(model)}")
    if "/" in weights or weights.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors")):
        raise UserError(f"{weights}: no such checkpoint file for model {model}")
    raise UserError(
        f"unknown weights '{weights}' for model {model}{_close(weights, tags)}; give the path of a"
        f" checkpoint or one of: {', '.join(tags)}"
    )


def _registry_tokenizer(model: str) -> Callable[..., torch.Tensor]:
    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:  # of transformers and huggingface_hub: no common base class
        raise UserError(f"can't get the tokenizer of model {model} ({_line(error)})") from error


def _download(model: str, tag: str) -> str:
    """Path of the tag's checkpoint in the cache, downloaded if need be (open_clip's own code)."""
    cfg = open_clip.get_pretrained_cfg(model, tag)
    log.info("weights %s of %s: from the cache, or downloaded now", tag, model)
    try:
        return open_clip.download_pretrained(cfg)
    except Exception as error:  # of urllib, httpx, huggingface_hub: they share no base class
        source = cfg.get("hf_hub") or cfg.get("url")
        raise UserError(
            f"can't download weights '{tag}' of model {model} from {source} ({_line(error)}); check"
            " the connection, or fetch the file elsewhere and give its path as weights"
        ) from error


def _close(word: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    near = [k for k in lower if k.startswith(word.lower())][:3]
    near = near or difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.5)
    return f", did you mean {' or '.join(lower[n] for n in near)}?" if near else ""


# --- weights and models that do not belong together --------------------------------------------


def _quick(model: str) -> bool:
    return bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))


def _twin(model: str) -> str:
    """The name of the same architecture with the other activation."""
    return model.removesuffix(QUICK) if model.endswith(QUICK) else model + QUICK


def _check_activation(model: str, cfg: dict[str, Any], weights: str) -> None:
    """Refuse weights that were trained with the other activation: they run, and score badly."""
    quick = bool(cfg.get("quick_gelu", False))
    if quick == _quick(model):
        return
    activation = "QuickGELU" if quick else "plain GELU"
    if (
        _twin(model) not in open_clip.list_models()
    ):  # nothing better to offer: open_clip's own table
        log.warning(
            "weights '%s' were trained with %s, unlike model %s", weights, activation, model
        )
        return
    raise UserError(
        f"weights '{weights}' were trained with {activation} and don't go with model {model}: use"
        f" {_twin(model)}"
    )


def _published(path: Path) -> dict[str, Any] | None:
    """open_clip's entry for a local file, if it is a published one under whatever name.

    Known by digest are the files whose download address has it: OpenAI's (whole SHA-256 as a
    folder) and open_clip's first releases (eight digits in the name). Of other files, such as a
    safetensors copy of OpenAI's weights, nothing in them tells the activation they were trained
    with: then only the file's name can give a hint, and a fine-tuned or renamed file is believed.
    """
    addresses = {}
    for model, tag in open_clip.list_pretrained():
        cfg = open_clip.get_pretrained_cfg(model, tag)
        url = cfg.get("url", "")
        if "openaipublic" in url:
            addresses[url.split("/")[-2]] = cfg
        elif "mlfoundations" in url:
            addresses[url.rsplit("-", 1)[-1].removesuffix(".pt")] = cfg
    digest = _sha256(path)
    return addresses.get(digest) or addresses.get(digest[:8])


def _says_quick(weights: str) -> bool:
    name = Path(weights).name.lower().replace("_", "").replace("-", "")
    return "openai" in name or "quickgelu" in name


# --- checkpoint files --------------------------------------------------------------------------


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from .safetensors, or from .pt and the like with weights_only=True.

    Raises:
        UserError: for missing, truncated or corrupt files, and files that hold anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise UserError(
            f"{path}: not a whole checkpoint that can be read safely ({_line(error)}); fetch it"
            " again, or save its state dict as .safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path}: holds no state dict")
    if not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{path}: holds more than the tensors of a state dict; save only those")
    return state


def _load_weights(model: torch.nn.Module, path: Path, name: str) -> None:
    """Load a checkpoint into `model` with open_clip's own conversions of old formats."""
    if _is_torchscript(path):
        _load_openai(model, path, name)
        return
    _check_positions(model, read_state(path), path, name)
    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except BROKEN as error:
        raise UserError(f"{path}: does not match model {name}: {_line(error)}") from error


def _check_positions(
    model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str
) -> None:
    """Refuse position embeddings of another size: open_clip would resize them without a word."""
    own = model.state_dict()
    for key in ("visual.positional_embedding", "positional_embedding"):
        found = state.get(key, state.get("module." + key))
        wanted = own.get(key, own.get("text." + key))
        if found is not None and wanted is not None and found.shape != wanted.shape:
            raise UserError(
                f"{path}: does not match model {name}: {key} is {tuple(found.shape)}, the model's"
                f" is {tuple(wanted.shape)}"
            )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_openai(model: torch.nn.Module, path: Path, name: str) -> None:
    """Load OpenAI's original archive, which is TorchScript and as such a program.

    It is opened only when its digest is one that OpenAI published.
    """
    if _published(path) is None:
        raise UserError(
            f"{path}: a TorchScript archive that is not OpenAI's (by its SHA-256), so it is not"
            " opened; save its state dict as .safetensors"
        )
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    for key in ("input_resolution", "context_length", "vocab_size"):
        state.pop(key, None)
    _check_positions(model, state, path, name)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: does not match model {name}: {_line(error)}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _line(error: BaseException, length: int = 300) -> str:
    """An exception's text as one line of bounded length."""
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + " ..."
