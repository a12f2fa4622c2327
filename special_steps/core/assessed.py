"""What `assess` estimates, in words: for its own output, the summary and pages."""

from typing import Any


def headline(found: dict[str, Any]) -> str:
    """The overall accuracy, and what it rests on.

    Args:
        found: as `assess` writes it as JSON.
    """
    points = f"{found['interpreted']} of {found['drawn']} points, {found['design']}"
    coverage = found.get("coverage", 1)
    part = "" if coverage == 1 else f" of the {coverage:.1%} of the map that has a class"
    return f"overall accuracy {_share(found['overall_accuracy'])}{part}; {points}; 95 % intervals"


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The estimates of each class: names of columns, then a row per class; "-" for what cannot be estimated.

    Args:
        found: as `assess` writes it as JSON.
    """
    metres = found["unit"] == "m2"
    unit = "ha" if metres else "pixels"
    scale, digits = (1e-4, 2) if metres else (1.0, 0)
    head = ["class", "user's accuracy", "producer's accuracy", f"area, {unit}", "of the map"]
    table = [head]
    for each in found["classes"]:
        area = {k: None if v is None else v * scale for k, v in each["area"].items()}
        table.append(
            [
                each["class"],
                _share(each["users_accuracy"]),
                _share(each["producers_accuracy"]),
                _interval(area, digits),
                f"{each['map_area'] * scale:.{digits}f}",
            ]
        )
    return table


def _share(value: dict[str, float | None]) -> str:
    return _interval(value, 3)


def _interval(value: dict[str, float | None], digits: int) -> str:
    if value["value"] is None:
        return "-"
    number, low, high = (f"{value[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{number} ({low} to {high})"
