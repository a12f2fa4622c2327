"""The configuration: one schema, checked early, with every default filled in."""

import copy
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, TypeChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from special_steps.core.campaigns import (
    TOGETHER,
    learned_on,
    scenes_behind,
    share_colours,
    take_classes,
)
from special_steps.core.classes import (
    MOST,
    UNKNOWN,
    check_class,
    classes_by_label,
    label_number,
    read_classes,
)
from special_steps.core.errors import UserError
from special_steps.core.palette import read_colours

SCHEMA = Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "config.schema.yaml"
# Which methods take a setting; the others are taken by all. A common value may stand for runs of other methods, too.
METHODS_OF = {
    "network": ["agreement"],
    "training": ["published"],
    "refine": ["published"],
    "classifier": ["agreement", "published"],
    "seeds": ["agreement", "published"],
    "reject": ["agreement", "published"],  # whose maps have a calibrated confidence
}
OF_ONE_METHOD = [key for key, methods in METHODS_OF.items() if len(methods) == 1]
UPSAMPLING_ALIASES = {"guided": "joint_bilateral"}


def schema() -> dict[str, Any]:
    """Read the schema."""
    return yaml.safe_load(SCHEMA.read_text())


def load(config: dict[str, Any]) -> dict[str, Any]:
    """Check `config`, fill in defaults, and give each run the settings that it does not override.

    Scenes' classes become mappings from name to synonyms, aliases of values what they stand for. Raises UserError
    naming the setting and the fix.
    """
    rules = schema()
    config = json.loads(
        json.dumps(config, default=str)
    )  # keys become words, as in YAML 2020: {...}
    _check(config, rules)
    shared = rules["properties"]["runs"]["additionalProperties"]["properties"]
    runs = {}
    for name, overrides in config.get("runs", {"hsi": {}}).items():
        common = {key: config[key] for key in shared if key in config}
        runs[name] = _merge(common, overrides)
    given = config
    config = config | {"runs": runs}
    config = _filled(config, rules, rules)
    for name, scene in config["scenes"].items():
        if scene["apply"] is None:
            scene["classes"] = read_classes(_classes(name, scene), f"config: scenes.{name}.classes")
    take_classes(config)
    for name, scene in config["scenes"].items():
        scene["colours"] = _colours(name, config)
        for class_name in scene["spectra"]:
            check_class(class_name, list(scene["classes"]), f"config: scenes.{name}.spectra")
        if truth := scene["ground_truth"]:
            where = f"config: scenes.{name}.ground_truth.labels"
            labels = truth["labels"].items()
            truth["labels"] = {each: label_number(label, where) for each, label in labels}
            truth["unlabelled"] = [label_number(v, where) for v in truth["unlabelled"]]
            classes_by_label(truth["labels"], list(scene["classes"]), truth["unlabelled"], where)
    share_colours(config)
    for class_name in config["colours"]:
        every = dict.fromkeys(n for scene in config["scenes"].values() for n in scene["classes"])
        check_class(class_name, list(every), "config: colours")
    if "none" in config["clips"]:
        raise UserError("config: clips.none: 'none' means no CLIP at all; give it another name")
    for name, clip in config["clips"].items():
        clip["upsampling"] = UPSAMPLING_ALIASES.get(clip["upsampling"], clip["upsampling"])
        _check_clip(clip, f"clips.{name}")
    _check_stretch(config["rgb"], "rgb")
    _check_stretch(config["features"], "features")
    _check_sections(given, {name: run["method"] for name, run in config["runs"].items()})
    for name, run in config["runs"].items():
        if isinstance(run["pseudo_labels"], str):
            run["pseudo_labels"] = {"path": run["pseudo_labels"], "align": False}
        _check_run(run, config, f"runs.{name}")
        if run["method"] not in METHODS_OF["reject"]:
            run["reject"] = None
        if run["reject"] is not None:
            _check_unknown(config["scenes"], f"runs.{name}.reject")
        if run["evidence"] is None:
            alone = run["method"] in ("published", "none") or run["input"] == "rgb"
            run["evidence"] = "none" if alone or run["pseudo_labels"] else "library"
        if run["clip"] == "none":
            run["scales"] = []
            if run["evidence"] == "none" and not run["pseudo_labels"]:
                raise UserError(
                    f"config: runs.{name}: without a CLIP and without evidence nothing labels the scene;"
                    f" set evidence: library, or clip: {next(iter(config['clips']))}"
                )
        if run["scales"] is None:
            bundled = config["clips"][run["clip"]]["model"] == "bundled"
            run["scales"] = _bundled_scales() if bundled else [1, 2]
    return config


def _classes(name: str, scene: dict[str, Any]) -> list[Any]:
    if scene["classes"] is None:
        raise UserError(
            f"config: scenes.{name}: 'classes' is missing; list class names in plain words, or, for a scene that"
            " another one's run maps, set apply: {from: SCENE/RUN}"
        )
    return scene["classes"]


def _colours(name: str, config: dict[str, Any]) -> dict[str, str]:
    """The user's colours of a scene's classes: those for all scenes, and the scene's own over them."""
    scene, where = config["scenes"][name], f"config: scenes.{name}.colours"
    for class_name in scene["colours"]:
        check_class(class_name, list(scene["classes"]), where)
    shared = read_colours(config["colours"], "config: colours")
    own = read_colours(scene["colours"], where)
    both = {k: v for k, v in (shared | own).items() if k in scene["classes"]}
    return read_colours(both, f"config: colours and scenes.{name}.colours")


def config_of(settings: dict[str, Any], scene: str, run: str) -> dict[str, Any]:
    """A config that makes one run of one scene again: what `load` made of a config, without defaults and other runs.

    Args:
        settings: as `load` returns them.
        scene: the scene's name.
        run: the run's name.
    """
    root = schema()
    of_runs = root["properties"]["runs"]["additionalProperties"]["properties"]
    given = settings["runs"][run]
    asked = {
        k: v for k, v in given.items() if given["method"] in METHODS_OF.get(k, [given["method"]])
    }
    if not asked["scales"]:  # no CLIP
        del asked["scales"]
    needed = scenes_behind(settings, scene, run)
    again: dict[str, Any] = {"scenes": {}}
    for name in needed:
        mapped = settings["scenes"][name]
        classes = [{c: words} if words else c for c, words in mapped["classes"].items()]
        # in the order that people write
        written = {"cube": mapped["cube"], "classes": classes} | mapped | {"classes": classes}
        if mapped["apply"]:
            del written["classes"], written["colours"]
        again["scenes"][name] = written
    if asked["clip"] in settings["clips"]:
        again["clips"] = {asked["clip"]: settings["clips"][asked["clip"]]}
    again["runs"] = {run: asked}
    out = (*of_runs, *again, "clips", "colours")
    if learned_on(settings, scene, run) != TOGETHER:
        out += ("train_together",)
    others = {k: v for k, v in settings.items() if k not in out}
    return _bare(again | others, root, root)


def _bare(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> Any:
    """A copy of `value` without what is the schema's default, in every mapping."""
    rule = _resolve(rule, root)
    if not isinstance(value, dict):
        return value
    other = rule.get("additionalProperties") or {}
    found = {}
    for key, inner in value.items():
        known = _resolve(rule.get("properties", {}).get(key, other), root)
        bare = _bare(inner, known, root)
        if "default" not in known or known["default"] not in (inner, bare):
            found[key] = bare
    return found


def default_of(name: str) -> Any:
    """The default of a setting, by its name in the table, such as `clips.NAME.window`."""
    root = rule = schema()
    for part in name.split("."):
        rule = rule["additionalProperties"] if part == "NAME" else rule["properties"][part]
        rule = _resolve(rule, root)
    return rule["default"]


def _bundled_scales() -> list[int | float]:
    """The scales that the bundled model works best at, by its own account (held-out mosaics)."""
    described = Path(__file__).parents[1] / "bundled_clip" / "model_config.json"
    return json.loads(described.read_text())["dense_cfg"]["scales"]


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _resolve(rule: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    for part in rule.get("$ref", "#").split("/")[1:]:
        root = root[part]
    return root if "$ref" in rule else rule


def _filled(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> Any:
    """A copy of `value` with the schema's defaults in every mapping."""
    rule = _resolve(rule, root)
    if not isinstance(value, dict):
        return value
    known = {k: _resolve(r, root) for k, r in rule.get("properties", {}).items()}
    defaults = {k: copy.deepcopy(r["default"]) for k, r in known.items() if "default" in r}
    other = rule.get("additionalProperties") or {}
    return {k: _filled(v, known.get(k, other), root) for k, v in (defaults | value).items()}


def _is_integer(checker: TypeChecker, value: Any) -> bool:
    """JSON Schema lets 1.0 pass, which would become a path like seed-1.0."""
    return isinstance(value, int) and not isinstance(value, bool)


Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def _check(config: Any, rules: dict[str, Any]) -> None:
    errors = sorted(Validator(rules).iter_errors(config), key=lambda e: len(e.path))
    if errors:
        raise UserError("config: " + "; ".join(_message(e) for e in errors[:3]))


def _message(error: ValidationError) -> str:
    """What is wrong, where, and what to write instead."""
    where = ".".join(str(p) for p in error.absolute_path) or "top level"
    rule = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(rule.get("properties", {}))
        unknown = [k for k in error.instance if k not in known]
        renamed = rule.get("x-renamed", {})
        old = [f"'{k}' is now '{renamed[k]}'" for k in unknown if k in renamed]
        if old:
            return f"{where}: {', '.join(old)}; use the new name"
        close = difflib.get_close_matches(str(unknown[0]), known, 1) if unknown else []
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
        return f"{where}: unknown setting '{unknown[0]}'; {hint}"
    if error.validator == "minItems" and not error.instance:
        return f"{where}: the list is empty; name at least one"
    if error.validator == "type" and _is_number(error.instance):
        return (
            f"{where}: '{error.instance}' is text in YAML; numbers have no quotes, and those with an"
            " exponent a dot and a sign, like 4.0e-4"
        )
    description = rule.get("description")
    return f"{where}: {error.message}" + (f" ({description})" if description else "")


def _is_number(value: Any) -> bool:
    """Whether `value` is text that reads as a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


def _check_clip(clip: dict[str, Any], where: str) -> None:
    if clip["model"] != "bundled" and not clip["weights"]:
        raise UserError(
            f"config: {where}.weights: '{clip['model']}' needs weights; give an open_clip tag"
            " (like openai) or the path of a checkpoint"
        )
    if clip["upsampling"] == "jbu" and not clip["jbu_weights"]:
        raise UserError(
            f"config: {where}.jbu_weights: upsampling 'jbu' is learned; give the path of its"
            " checkpoint, or take 'joint_bilateral', which needs none"
        )
    if clip["stride"] > clip["window"]:
        raise UserError(
            f"config: {where}.stride: {clip['stride']} is more than the window of"
            f" {clip['window']} pixels and leaves gaps; make it smaller"
        )


def _check_stretch(section: dict[str, Any], where: str) -> None:
    low, high = section["stretch"]
    if low >= high:
        raise UserError(
            f"config: {where}.stretch: [{low}, {high}] must rise; write the low one first"
        )


def _check_sections(given: dict[str, Any], methods: dict[str, str]) -> None:
    """Refuse settings that would be ignored: those of another method than the run's, or than any run's."""
    for name, overrides in given.get("runs", {}).items():
        for key in overrides:
            if methods[name] not in METHODS_OF.get(key, [methods[name]]):
                where = f"runs.{name}"
                raise UserError(
                    f"config: {where}.{key}: {_owner(key)}, and this run's is"
                    f" '{methods[name]}'; {_instead(key, methods[name])}"
                )
    for key in [*OF_ONE_METHOD, "reject"]:
        if given.get(key) is not None and not set(METHODS_OF[key]) & set(methods.values()):
            other = next(iter(methods.values()))
            raise UserError(
                f"config: {key}: {_owner(key)}, which no run has; {_instead(key, other)}"
            )


def _owner(key: str) -> str:
    """Which methods a setting belongs to."""
    methods = METHODS_OF[key]
    return f"belongs to method{'s'[: len(methods) > 1]} {' and '.join(map(repr, methods))}"


def _instead(key: str, method: str) -> str:
    """What to do with a setting that a run of a method does not take."""
    own = [k for k in OF_ONE_METHOD if method in METHODS_OF[k]]
    use = f", or method {method}'s own, {' and '.join(map(repr, own))}" if own else ""
    return f"write 'method: {METHODS_OF[key][0]}'{use}, or leave it out"


def _check_run(run: dict[str, Any], config: dict[str, Any], where: str) -> None:
    if run["clip"] not in (*config["clips"], "none"):
        known = ", ".join([*config["clips"], "none"])
        raise UserError(f"config: {where}.clip: no '{run['clip']}' in clips; there are: {known}")
    training = run["training"]
    if training["warmup_epochs"] >= training["epochs"]:
        raise UserError(
            f"config: {where}.training.warmup_epochs: {training['warmup_epochs']} of"
            f" {training['epochs']} epochs leaves no refinement; make it smaller"
        )
    if run["classifier"]["hidden"] % run["classifier"]["tokens"]:
        raise UserError(f"config: {where}.classifier.hidden: must be a multiple of tokens")


def _check_unknown(scenes: dict[str, Any], where: str) -> None:
    """Refuse scenes whose maps have no room, or no name, for pixels of unknown class."""
    for name, scene in scenes.items():
        classes = scene["classes"]
        own = [word for word in classes if " ".join(word.casefold().split()) == UNKNOWN]
        if own:
            raise UserError(
                f"config: scenes.{name}.classes: '{own[0]}' is what {where} calls pixels of low confidence; give the"
                " class another name, or leave reject out"
            )
        if len(classes) >= MOST:
            raise UserError(
                f"config: {where}: scene {name} has {len(classes)} classes, and a map has no value left for"
                f" '{UNKNOWN}'; take {MOST - 1} classes at most, or leave reject out"
            )


def page() -> str:
    """The page of settings, workflow/docs/SETTINGS.md: a Markdown table of name, default, meaning."""
    lines = ["# Settings", ""]
    lines += [
        "`python -m special_steps.core.settings` makes this page from the config's schema.",
        "",
    ]
    lines += ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, default, meaning in _rows(schema(), ""):
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _rows(rule: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, inner in rule.get("properties", {}).items():
        if "$ref" in inner:
            continue
        name = f"{prefix}{key}"
        default = inner.get("default")
        if key in rule.get("required", ()):
            shown = "required"
        elif "default" not in inner or isinstance(default, dict):
            shown = ""
        else:
            text = yaml.safe_dump(default, default_flow_style=True).replace("\n...", "")
            shown = f"`{text.strip()}`"
        yield name, shown, inner["description"]
        yield from _rows(inner, f"{name}.")
        other = inner.get("additionalProperties")
        if isinstance(other, dict) and "properties" in other:
            yield from _rows(other, f"{name}.NAME.")


if __name__ == "__main__":
    print(page(), end="")
