"""Scenes that share a model: which learns from which, checked in the config."""

from typing import Any

from special_steps.core.classes import read_classes
from special_steps.core.errors import UserError

TOGETHER = (
    "together"  # folder of what is learned from several scenes, in the place of a scene's name
)
MOSAIC = "mosaic"  # folder of the mosaics
WITH_MODEL = ("agreement", "published")  # methods that learn what another scene can be mapped by


def members(config: dict[str, Any]) -> list[str]:
    """The scenes that one classifier learns from."""
    return config["train_together"] or []


def learns_together(config: dict[str, Any], run: str) -> bool:
    """Whether a run is one of those in which one classifier learns from several scenes."""
    given = config["runs"][run]
    return bool(members(config)) and given["method"] == "agreement" and given["input"] == "hsi"


def learned_on(config: dict[str, Any], scene: str, run: str) -> str:
    """The scene whose training maps a scene in a run: itself, the one that it is applied from, or TOGETHER."""
    if apply := config["scenes"].get(scene, {}).get("apply"):
        scene = apply["from"].partition("/")[0]
    return TOGETHER if scene in members(config) and learns_together(config, run) else scene


def runs_of(config: dict[str, Any], scene: str) -> list[str]:
    """Runs that map a scene: all, or the one that it is applied from."""
    apply = config["scenes"][scene]["apply"]
    return [apply["from"].partition("/")[2]] if apply else list(config["runs"])


def scenes_behind(config: dict[str, Any], scene: str, run: str) -> list[str]:
    """The scenes that a map needs, itself last where it takes no part in the training."""
    source = learned_on(config, scene, run)
    return list(dict.fromkeys([*(members(config) if source == TOGETHER else [source]), scene]))


def take_classes(config: dict[str, Any]) -> None:
    """Give applied scenes the classes of the scenes that they are applied from, in place; check who learns from whom.

    Args:
        config: filled with defaults; classes of the other scenes are read.

    Raises:
        UserError: naming the setting and the fix.
    """
    scenes, runs = config["scenes"], config["runs"]
    for name, scene in scenes.items():
        if scene["apply"] is None:
            continue
        where, source = f"config: scenes.{name}.apply.from", scene["apply"]["from"]
        known, _, run = source.partition("/")
        if known not in scenes or known == name:
            others = [s for s in scenes if scenes[s]["apply"] is None]
            raise UserError(
                f"{where}: '{known}' is no other scene of this config, which has {', '.join(others) or 'none'}; add it:"
                " what is there of it is not computed again"
            )
        if scenes[known]["apply"]:
            raise UserError(
                f"{where}: '{known}' learns nothing itself; write from: {scenes[known]['apply']['from']}"
            )
        if run not in runs:
            raise UserError(
                f"{where}: '{source}' names no run; write {known}/ and one of {', '.join(runs)}, or add '{run}' to"
                " runs: what is there of it is not computed again"
            )
        if runs[run]["method"] not in WITH_MODEL or runs[run]["input"] != "hsi":
            fitting = [
                r for r, v in runs.items() if v["method"] in WITH_MODEL and v["input"] == "hsi"
            ]
            raise UserError(
                f"{where}: run '{run}' (method {runs[run]['method']}, input {runs[run]['input']}) has no model that"
                " maps other scenes; take a run of method agreement or published and input hsi"
                + (f": {', '.join(fitting)}" if fitting else "")
            )
        for key in ("materials", "spectra", "labels"):
            if scene[key]:
                raise UserError(
                    f"config: scenes.{name}.{key}: the scene is mapped by what {known} learned, and learns nothing;"
                    f" leave it out, or set it in scenes.{known}"
                )
        if scene["classes"] is not None:
            own = read_classes(scene["classes"], f"config: scenes.{name}.classes")
            if list(own) != list(scenes[known]["classes"]):
                raise UserError(
                    f"config: scenes.{name}.classes: {', '.join(own)} are not those of {known}, whose model has"
                    f" {', '.join(scenes[known]['classes'])}; leave them out"
                )
        scene["classes"] = dict(scenes[known]["classes"])
    _check_together(config)
    campaign = members(config) or any(scene["apply"] for scene in scenes.values())
    for name in (TOGETHER, MOSAIC):
        if campaign and name in scenes:
            raise UserError(
                f"config: scenes.{name}: results/{name} is the folder of what scenes have in common; give the scene"
                " another name"
            )


def _check_together(config: dict[str, Any]) -> None:
    """Refuse members that can't learn together."""
    scenes, names = config["scenes"], members(config)
    where = "config: train_together"
    for name in names:
        if name not in scenes:
            raise UserError(f"{where}: no scene '{name}'; there are: {', '.join(scenes)}")
        if scenes[name]["apply"]:
            raise UserError(
                f"{where}: '{name}' is mapped by what {scenes[name]['apply']['from']} learned; leave out the one or the"
                " other"
            )
        first = list(scenes[names[0]]["classes"])
        if (own := list(scenes[name]["classes"])) != first:
            raise UserError(
                f"{where}: the classes of {name} ({', '.join(own)}) are not those of {names[0]} ({', '.join(first)});"
                " give all the same names in the same order, synonyms may differ"
            )
    if names and not any(learns_together(config, run) for run in config["runs"]):
        raise UserError(
            f"{where}: no run has method agreement and input hsi, which learn from several scenes; add one, or leave"
            " train_together out"
        )


def share_colours(config: dict[str, Any]) -> None:
    """Give applied scenes the colours of those that they are applied from, in place; one legend for each campaign.

    Raises:
        UserError: where colours of one class differ.
    """
    scenes = config["scenes"]
    pairs = [
        (name, s["apply"]["from"].partition("/")[0]) for name, s in scenes.items() if s["apply"]
    ]
    pairs += [(name, members(config)[0]) for name in members(config)[1:]]
    for name, source in pairs:
        own, shared = scenes[name]["colours"], scenes[source]["colours"]
        if any(shared.get(key) != colour for key, colour in own.items()) or (
            own != shared and not scenes[name]["apply"]
        ):
            raise UserError(
                f"config: scenes.{name}.colours: not those of {source}, and both have one legend; write colours at the"
                " top level, for all scenes"
            )
        scenes[name]["colours"] = dict(shared)
