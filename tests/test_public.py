"""The public surface: what `import hesskit` offers is explicit, documented and shown by example."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hesskit

MAX_POSITIONAL = 3
POSITIONAL = {"curve_fit": 4, "curve_fit_many": 4}  # model, xdata, ydata, params: as in SciPy
OPTIONAL = ["matplotlib", "tqdm", "sklearn", "jaxopt", "optimistix", "pytest"]


def public_objects() -> Iterator[tuple[str, object]]:
    """Each public name with its object; a public module (losses) gives its functions too."""
    for name in hesskit.__all__:
        thing = getattr(hesskit, name)
        yield name, thing
        if isinstance(thing, ModuleType):
            for inner, value in vars(thing).items():
                own = getattr(value, "__module__", None) == thing.__name__
                if own and not inner.startswith("_"):
                    yield f"{name}.{inner}", value


OBJECTS = dict(public_objects())
FUNCTIONS = {
    name: thing
    for name, thing in OBJECTS.items()
    if callable(thing) and not inspect.isclass(thing) and hasattr(thing, "__module__")
}


def documented_parameters(doc: str) -> list[str]:
    """Names in the Args section of a Google docstring, without their stars, in order.

    A name stands at the smallest indentation of the section: "name: ...", "name (type): ...",
    or "a, b: ...".
    """
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(doc), re.MULTILINE)
    if section is None:
        return []
    lines = [line for line in section[1].splitlines() if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    heads = [line[indent:] for line in lines if not line[indent].isspace()]
    names = [re.match(r"[\w*, ]+?(?=\s*(\(.*\))?:)", head) for head in heads]
    return [part.strip(" *") for name in names if name for part in name[0].split(",")]


def signature_parameters(function: Callable) -> list[str]:
    """Names that a docstring must explain, in order."""
    return [name for name in inspect.signature(function).parameters if not name.startswith("_")]


def test_all_is_sorted_and_unique():
    assert list(hesskit.__all__) == sorted(set(hesskit.__all__))


def test_all_is_the_public_surface():
    folders = {
        name
        for name, thing in vars(hesskit).items()
        if isinstance(thing, ModuleType) and thing.__name__ == f"hesskit.{name}"
    }
    attributes = {name for name in vars(hesskit) if not name.startswith("_")}
    assert set(hesskit.__all__) == attributes - folders


def test_the_stub_lists_what_there_is():
    stub = ast.parse(Path(hesskit.__file__).with_suffix(".pyi").read_text())
    listed = [node.value for node in stub.body if isinstance(node, ast.Assign)]
    assert [ast.literal_eval(names) for names in listed] == [hesskit.__all__]
    assert set(hesskit.__all__) < set(dir(hesskit))


def test_import_loads_only_what_is_used():
    code = (
        "import sys, hesskit\n"
        "print(sum(name.startswith('hesskit.') for name in sys.modules))\n"
        "hesskit.scale_by_lbfgs\n"
        "print('hesskit.transforms.lbfgs' in sys.modules, 'hesskit.solvers' in sys.modules)\n"
        "from hesskit import *\n"
        "print(minimize is hesskit.minimize, losses.__name__)\n"
        "try: hesskit.minimise\n"
        "except AttributeError as error: print(error, error.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "0",
        "True False",
        "True hesskit.core.losses",
        "module 'hesskit' has no attribute 'minimise' minimise",
    ], done.stderr


@pytest.mark.parametrize("name", OBJECTS)
def test_has_a_docstring_of_its_own(name: str):
    thing = OBJECTS[name]
    if not (callable(thing) or isinstance(thing, ModuleType)):
        pytest.skip("a constant")
    doc = thing.__doc__ or ""
    generated = inspect.isclass(thing) and doc.startswith(f"{thing.__name__}(")
    assert doc.strip(), f"{name} has no docstring"
    assert not generated, f"{name} has only the docstring that dataclass or NamedTuple writes"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example_is_shown_and_run(name: str):
    function = FUNCTIONS[name]
    assert re.search(r"^\s*Examples?:\n", function.__doc__, re.MULTILINE), f"{name}: no Example:"
    module = sys.modules[function.__module__]
    mine = f"{module.__name__}.{function.__name__}"
    seen = {test.name for test in doctest.DocTestFinder().find(module) if test.examples}
    assert mine in seen, "doctest finds no >>> in its docstring"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_positional_arguments(name: str):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter.name for parameter in parameters if parameter.kind in kinds]
    assert len(positional) <= POSITIONAL.get(name, MAX_POSITIONAL), positional


@pytest.mark.parametrize("name", FUNCTIONS)
def test_args_are_those_of_the_signature(name: str):
    function = FUNCTIONS[name]
    assert documented_parameters(function.__doc__) == signature_parameters(function)


def test_import_needs_no_extra():
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # None: importing it raises
        "import hesskit\n"
        "assert 'hesskit.plots' not in sys.modules\n"
        "print(len(hesskit.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(hesskit.__all__)


@pytest.mark.parametrize("missing", [False, True])
def test_plots_come_with_the_package_and_say_what_they_need(missing):
    code = "import sys; sys.modules['matplotlib'] = None\n" if missing else ""
    code += "import hesskit\ntry: print(hesskit.plots.fit.__name__)\n"
    code += "except ModuleNotFoundError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "hesskit.plots needs matplotlib: pip install 'hesskit[plots]'" if missing else "fit"
    assert done.stdout.strip() == said, done.stderr


def test_documented_parameters_reads_google_style():
    doc = """One line.

    Args:
        params: a pytree, for example
            {"a": 1.0}: a dict.
        damping (float): added.

            More on it: here.
        lower, upper: the box.
        *rest: more.
        **data: by name.

    Returns:
        value: not an argument.
    """
    assert documented_parameters(doc) == ["params", "damping", "lower", "upper", "rest", "data"]
    assert documented_parameters("One line.") == []
