"""hesskit: second-order optimization for JAX."""

import ast as _ast
import importlib as _importlib
import pkgutil as _pkgutil
import sys as _sys

__version__ = "0.1.0"


def _listed() -> dict[str, str]:
    """The module of each public name, from the stub beside this file."""
    stub = _ast.parse(_pkgutil.get_data(__name__, "__init__.pyi") or b"")
    lines = [node for node in stub.body if isinstance(node, _ast.ImportFrom)]
    return {item.name: line.module or "" for line in lines for item in line.names}


_MODULES = _listed()
__all__ = sorted(set(_MODULES) - {"plots"})  # pyright: ignore[reportUnsupportedDunderAll]  # the stub has it


def __getattr__(name: str) -> object:
    """A public name is imported on its first use; `hesskit.plots` needs matplotlib, an extra."""
    if name not in _MODULES:
        said = f"module 'hesskit' has no attribute {name!r}"
        raise AttributeError(said, name=name, obj=_sys.modules[__name__])
    if name == "plots":
        return _plots()
    found = getattr(__import__(_MODULES[name], fromlist=[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


def _plots() -> object:
    try:
        return _importlib.import_module("hesskit.plots")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "hesskit.plots needs matplotlib: pip install 'hesskit[plots]'", name="matplotlib"
        ) from error
