"""Digests of the code that a step runs: Snakemake does not see a changed import by itself."""

import ast
import hashlib
from functools import cache
from itertools import accumulate
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _file(module: str) -> Path | None:
    """Source file of a module of this package, None for others."""
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Files of this package that a file imports, anywhere in its text, with their packages."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: import by full name, {PACKAGE.name}. ...")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    # a.b.c runs a, a.b and, where it is a module, a.b.c
    prefixes = {p for n in names for p in accumulate(n.split("."), lambda a, b: f"{a}.{b}")}
    return frozenset(file for name in prefixes if (file := _file(name)))


def closure(module: str) -> list[Path]:
    """Files that `special_steps.<module>` runs, itself first, then sorted; with a module comes its C++.

    Raises:
        ValueError: when there is no such module.
    """
    start = _file(f"{PACKAGE.name}.{module}")
    if start is None:
        raise ValueError(f"no module {module} in {PACKAGE}")
    found, todo = {start}, [start]
    while todo:
        new = _imports(todo.pop()) - found
        found |= new
        todo += new
    beside = (path.with_suffix(suffix) for path in found for suffix in (".cpp", ".h"))
    compiled = {source for source in beside if source.is_file()}
    return [start, *sorted(found - {start} | compiled)]


@cache
def digest_of(module: str) -> str:
    """Digest of the source of a module and of all that it imports from this package."""
    digest = hashlib.sha256()
    for path in closure(module):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
