"""Settings as the schema has them when the user says nothing: for steps, which have no defaults of their own."""

from typing import Any

from special_steps.core.settings import schema


def defaults(*path: str) -> dict[str, Any]:
    """Default of each setting below a path; NAME stands for a name of the user's choice."""
    rule = schema()
    for part in path:
        rule = rule["additionalProperties"] if part == "NAME" else rule["properties"][part]
    return {k: r["default"] for k, r in rule["properties"].items() if "default" in r}


CUBE = defaults("scenes", "NAME", "cube")
INGEST = CUBE | {k: defaults("scenes", "NAME")[k] for k in ("mask", "mask_quality", "area")}
GROUND_TRUTH = defaults("scenes", "NAME", "ground_truth")
