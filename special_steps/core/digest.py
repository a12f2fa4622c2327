"""Digests of the code that decides a step's result: Snakemake does not see a changed import by itself.

What counts is what Python runs, of the step's module and of all that it imports from this package: comments, blank
lines, formatting and docstrings don't count, nor do the package's version and the command line around the step. With a
module come its table, `<module>.csv`, its template, `<module>.html`, and the kernels that it loads, `<module>.cpp` with
the headers that it includes.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
COMMAND_LINE = f"{PACKAGE.name}.core.cli"
TABLES = (".csv", ".html")  # what a module reads from a file of its own name, as it stands
COMMENT = re.compile(r"""//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])')""", re.DOTALL)


@cache
def digest_of(step: str) -> str:
    """Digest of the code that `special_steps.<step>` runs.

    Raises:
        ValueError: when there is no such module.
    """
    digest = hashlib.sha256()
    for path in closure(step):
        normal = _normal(path)
        digest.update(f"{path.relative_to(PACKAGE)}\n{normal}\n".encode())
    return digest.hexdigest()[:16]


def closure(step: str) -> list[Path]:
    """Files that `special_steps.<step>` runs, itself first, then sorted.

    Raises:
        ValueError: when there is no such module.
    """
    start = _file(f"{PACKAGE.name}.{step}")
    if start is None:
        raise ValueError(f"no module {step} in {PACKAGE}")
    found, todo = {start}, [start]
    while todo:
        new = _imports(todo.pop()) - found
        found |= new
        todo += new
    beside = (path.with_suffix(kind) for path in found for kind in TABLES)
    tables = {table for table in beside if table.is_file()}
    kernels = (path.with_suffix(".cpp") for path in found)
    compiled = {source for kernel in kernels if kernel.is_file() for source in sources(kernel)}
    return [start, *sorted(found - {start} | compiled | tables)]


def sources(kernel: Path) -> list[Path]:
    """A C++ file and all files of its folder that it includes, also by way of others."""
    found, todo = [kernel], [kernel]
    while todo:
        names = re.findall(r'^\s*#\s*include\s*"([^"]+)"', todo.pop().read_text(), re.MULTILINE)
        new = [path for name in names if (path := kernel.parent / name) not in found]
        found += new
        todo += new
    return found


def without_comments(code: str) -> str:
    """C++ code without comments, blank lines and indentation."""
    lines = COMMENT.sub(lambda match: match[1] or " ", code).splitlines()
    return "\n".join(line for raw in lines if (line := " ".join(raw.split())))


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
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: import by full name, {PACKAGE.name}. ...")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    # a.b.c runs a, a.b and, where it is a module, a.b.c
    prefixes = {p for n in names for p in accumulate(n.split("."), lambda a, b: f"{a}.{b}")}
    return frozenset(file for name in prefixes - {COMMAND_LINE} if (file := _file(name)))


@cache
def _normal(path: Path) -> str:
    """A file's text without what changes no result."""
    match path.suffix:
        case ".py":
            return _python(path)
        case ".csv" | ".html":
            return path.read_text()
        case _:
            return without_comments(path.read_text())


def _python(path: Path) -> str:
    """A Python file's syntax tree as text, without what changes no result."""
    return "".join(_dumped(ast.parse(path.read_bytes(), filename=str(path))))


def _dumped(node: object) -> Iterator[str]:
    """Like ast.dump, but the same text in every version of Python: fields that are empty are left out."""
    if isinstance(node, list):
        yield from (part for item in node if not _idle(item) for part in _dumped(item))
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f" {name}="
                yield from _dumped(value)
        yield ")"
    else:
        yield f"{node!r},"


def _idle(node: object) -> bool:
    """Whether a statement is text alone (a docstring), the version, or what the command line calls."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__version__")]):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case _:
            return False
