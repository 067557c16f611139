"""The shape of the tree, held by a machine: imports point down, files and functions stay short.

The table of layers is `MAY_IMPORT`; `violations` reads one file and lists what breaks a rule, each
with the line and what to do. The last tests show that it catches what it claims to catch.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("hesskit/**/*.py"))

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60  # without the docstring
MAX_SUPPRESSIONS = 12  # in the whole tree
UNTESTED = {"hesskit/core/types.py", "hesskit/core/rule.py"}  # types: nothing that runs
REEXPORTING = {"hesskit/__init__.py", "hesskit/plots/__init__.py"}


class Layer(NamedTuple):
    """What the modules of one folder may import; the standard library always."""

    layers: set[str]
    packages: set[str]
    siblings: set[str] | None = None  # None: all; else the only modules of its own folder


MAY_IMPORT = {
    "core": Layer({"core"}, {"jax", "chex"}),
    "linalg": Layer({"core", "linalg"}, {"jax"}),
    "curvature": Layer({"core", "linalg", "curvature"}, {"jax"}, siblings=set()),
    "transforms": Layer(
        {"core", "linalg", "curvature", "transforms"},
        {"jax", "optax"},
        siblings={
            "_build",
            "_descend",
            "_diagonal",
            "_gauss_newton",
            "_hessian_free",
            "_kfac",
            "_kfac_layout",
            "_kfac_renewal",
            "_natural_gradient",
            "_optax",
        },
    ),
    "solvers": Layer(
        {"core", "linalg", "curvature", "transforms", "solvers"}, {"jax", "optax", "tqdm"}
    ),
    "analysis": Layer(
        {"core", "linalg", "curvature", "solvers", "analysis"},
        {"jax", "optax"},
        siblings={"_critical", "_entry", "_spectrum"},
    ),
    "plots": Layer(
        {"core", "analysis", "plots"}, {"numpy", "matplotlib"}, siblings={"_axes", "_paths"}
    ),
    "": Layer(
        {"core", "linalg", "curvature", "transforms", "solvers", "analysis"}, set()
    ),  # hesskit/__init__.py, which imports no plots
}


def imported(node: ast.Import | ast.ImportFrom, path: str) -> Iterator[str]:
    """Full dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    folder = Path(path).parent.parts
    base = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (base, node.module) if part)
    yield from (f"{module}.{alias.name}" for alias in node.names)


def import_violation(name: str, path: str) -> str | None:
    """Why the module at `path` may not import `name`, or None if it may."""
    parts = name.split(".")
    here = Path(path).parts
    layer = here[1] if len(here) > 2 else ""
    rule = MAY_IMPORT[layer]
    if "_src" in parts:
        return f"{name} is private: private names rot; use the public one"
    if parts[0] != "hesskit":
        if parts[0] in sys.stdlib_module_names or parts[0] in rule.packages:
            return None
        return f"{layer or 'hesskit/__init__'} may not import the package {parts[0]}"
    target = parts[1] if len(parts) > 1 else ""
    if target not in rule.layers:
        return f"{layer or 'hesskit/__init__'} may not import {name}: imports only point down"
    module = parts[2] if len(parts) > 2 else ""
    free = target != layer or rule.siblings is None or path in REEXPORTING
    if not free and module not in rule.siblings:
        return f"siblings in {layer} do not import one another ({name}): move it down a layer"
    return None


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def node_violations(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """(line, sentence) for each import and each function that breaks a rule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node, path):
                if why := import_violation(name, path):
                    yield node.lineno, why
        elif isinstance(node, ast.Attribute) and node.attr == "_src":
            yield node.lineno, f"{ast.unparse(node)} is private: private names rot"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (lines := function_lines(node)) > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner.lineno, f"import inside {node.name}: imports stand at the top"


def violations(path: str, source: str) -> list[str]:
    """Every rule of the tree that the file at `path` breaks, as sentences."""
    tree = ast.parse(source)
    found = list(node_violations(tree, path))
    if path.endswith("__init__.py") and path not in REEXPORTING:
        if source.strip():
            found.append((1, "a sub-package __init__ is empty: it would hide modules by its names"))
    elif not ast.get_docstring(tree):
        found.append((1, "has no docstring: state the problem, the formula and the source"))
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        found.append((lines, f"has {lines} lines, at most {MAX_FILE_LINES}: one concept, one file"))
    return [f"{path}:{line}: {why}" for line, why in sorted(set(found))]


SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:|pragma: no cover)")
# The code that is switched off, then why, after a dash or a second hash.
REASONED = re.compile(r"#\s*(noqa:|(type|pyright):\s*ignore\[)[\s\w,\]-]+\s(-|#)\s+\w+ \w+")


def suppressions(source: str) -> list[str]:
    """The comments that switch a checker off."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return [comment for comment in comments if SUPPRESSION.search(comment)]


@pytest.mark.parametrize("path", SOURCES)
def test_file_keeps_the_rules(path: str):
    assert violations(path, (ROOT / path).read_text()) == []


def test_every_folder_is_a_layer():
    folders = {Path(path).parts[1] for path in SOURCES if len(Path(path).parts) > 2}
    assert folders <= set(MAY_IMPORT)
    assert all(len(Path(path).parts) <= 3 for path in SOURCES), "layers have no sub-folders"


def test_every_module_has_a_test_of_its_name():
    modules = [Path(path) for path in SOURCES if not path.endswith("__init__.py")]
    wanted = [
        Path("tests", *path.parts[1:-1], f"test_{path.name}")
        for path in modules
        if path.as_posix() not in UNTESTED
    ]
    assert [str(path) for path in wanted if not (ROOT / path).exists()] == []


def test_tqdm_is_imported_in_one_place():
    pattern = re.compile(r"^\s*(import|from) tqdm", re.MULTILINE)
    assert len([path for path in SOURCES if pattern.search((ROOT / path).read_text())]) <= 1


@pytest.mark.slow
def test_suppressions_are_few_and_have_a_reason():
    found = [
        f"{path.relative_to(ROOT)}: {comment}"
        for folder in ("hesskit", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for comment in suppressions(path.read_text())
    ]
    assert [row for row in found if not REASONED.search(row)] == [], "name the code and the reason"
    assert len(found) <= MAX_SUPPRESSIONS


LONG = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
DOCUMENTED = 'def f():\n    """' + "word\n" * MAX_FUNCTION_LINES + '"""\n    return 1'


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("hesskit/core/a.py", "from hesskit.linalg import cg", "only point down"),
        ("hesskit/core/a.py", "from ..linalg import cg", "only point down"),
        ("hesskit/core/a.py", "import hesskit", "only point down"),
        ("hesskit/core/a.py", "import optax", "may not import the package optax"),
        ("hesskit/core/a.py", "import numpy as np", "may not import the package numpy"),
        ("hesskit/linalg/a.py", "import hesskit.transforms.newton", "only point down"),
        ("hesskit/curvature/a.py", "from hesskit.curvature.b import c", "do not import one"),
        ("hesskit/transforms/a.py", "from . import newton", "do not import one another"),
        ("hesskit/transforms/a.py", "from hesskit.solvers import many", "only point down"),
        ("hesskit/analysis/a.py", "from hesskit.transforms import newton", "only point down"),
        ("hesskit/__init__.py", "from hesskit.plots import surface", "only point down"),
        ("hesskit/__init__.py", "import matplotlib", "may not import the package"),
        ("hesskit/core/a.py", "from jax._src import core", "private"),
        ("hesskit/core/a.py", "import jax\nx = jax._src.core", "private"),
        ("hesskit/core/a.py", "def f():\n    import jax", "import inside f"),
        ("hesskit/core/a.py", LONG, "f has 61 lines"),
        ("hesskit/core/a.py", "\n" * MAX_FILE_LINES + "x = 1", "has 301 lines"),
        ("hesskit/core/a.py", "x = 1", "has no docstring"),
        ("hesskit/core/__init__.py", "from hesskit.core.a import b", "is empty"),
    ],
)
def test_checker_catches(path: str, source: str, words: str):
    assert any(words in row for row in violations(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hesskit/linalg/a.py", "from hesskit.core import tree\nfrom hesskit.linalg.cg import cg"),
        ("hesskit/transforms/a.py", "from hesskit.transforms._build import build\nimport optax"),
        ("hesskit/solvers/a.py", "try:\n    import tqdm\nexcept ImportError:\n    tqdm = None"),
        ("hesskit/plots/__init__.py", "from hesskit.plots._surface import surface"),
        ("hesskit/core/a.py", "import functools\nimport jax.numpy as jnp\n" + DOCUMENTED),
        ("hesskit/core/a.py", LONG.removesuffix("    x = 1\n")),
    ],
)
def test_checker_accepts(path: str, source: str):
    assert violations(path, '"""Doc."""\n' + source) == []


@pytest.mark.parametrize(
    ("comment", "counted", "reasoned"),
    [
        ("# noqa: B023 - called before the loop goes on", True, True),
        ("# pyright: ignore[reportCallIssue]  # optax has no stub here", True, True),
        ("# type: ignore[arg-type] - the stub is wrong", True, True),
        ("# noqa: B023", True, False),
        ("# noqa", True, False),
        ("# pyright: basic", True, False),
        ("# the noqa of life", False, False),
    ],
)
def test_suppressions_are_seen(comment: str, counted: bool, reasoned: bool):
    assert bool(suppressions(f"x = 1  {comment}\n")) == counted
    assert bool(REASONED.search(comment)) == reasoned
