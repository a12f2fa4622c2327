"""Who imports whom: one way only, and as the picture in ARCHITECTURE.md says.

    python tests/unit/test_architecture.py

draws the picture again.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "special_steps"
DOCUMENT = ROOT / "workflow" / "docs" / "ARCHITECTURE.md"
# From the top floor down: a floor imports those below it; rooms of one floor do not import each other.
FLOORS = [
    ["api"],
    ["steps"],
    ["bundled_clip"],
    ["classifier", "clip", "simulated_scene"],
    ["materials"],
    ["io", "kernels"],
    ["core"],
]
BEGIN, END = "<!-- picture: drawn by tests/unit/test_architecture.py -->", "<!-- /picture -->"


def room(path: Path) -> str:
    """The folder that a module lies in; `steps` for those at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "steps"


def imported(path: Path) -> set[Path]:
    """Modules of the package that a module imports, anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    files = (ROOT / f"{name.replace('.', '/')}.py" for name in names)
    return {file for file in files if PACKAGE in file.parents and file.is_file()}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_imports_go_down_only():
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    wrong = [
        f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}"
        for path in modules()
        for other in imported(path)
        if room(path) != room(other) and floor[room(other)] <= floor[room(path)]
    ]
    assert not wrong


def test_no_step_imports_another_step():
    wrong = [
        f"{path.name} imports {other.name}"
        for path in modules()
        for other in imported(path)
        if room(path) == room(other) == "steps"
    ]
    assert not wrong


def test_no_circle_within_a_folder():
    found = {path: imported(path) for path in modules()}

    def reached(path: Path, seen: frozenset[Path]) -> None:
        assert path not in seen, f"{path.relative_to(ROOT)} imports itself by way of others"
        for other in found[path]:
            reached(other, seen | {path})

    for path in found:
        reached(path, frozenset())


def picture() -> str:
    """Which folders import which, and which modules each step imports."""
    edges = {(room(path), room(other)) for path in modules() for other in imported(path)}
    arrows = [
        f"    {name} --> {other}"
        for rooms in FLOORS
        for name in rooms
        for others in FLOORS
        for other in others
        if (name, other) in edges and name != other
    ]
    lines = ["```mermaid", "flowchart TD", *arrows, "```", ""]
    lines += ["| step | imports |", "| --- | --- |"]
    everywhere = {"core.cli", "core.errors", "core.store", "core.atomic"}
    for path in modules():
        if room(path) == "steps":
            names = {
                str(other.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
                for other in imported(path)
            }
            lines.append(f"| `{path.stem}` | {', '.join(sorted(names - everywhere)) or '-'} |")
    return "\n".join(lines)


def test_the_picture_equals_the_imports():
    shown = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0].strip()
    assert shown == picture(), "run: python tests/unit/test_architecture.py"


if __name__ == "__main__":
    head, _, rest = DOCUMENT.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n{picture()}\n\n{END}{tail}")
