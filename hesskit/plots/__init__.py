"""Pictures: each is `plot(thing, ax=None, ...)`, makes Axes if there are none, and returns them."""

from hesskit.plots._convergence import convergence
from hesskit.plots._corner import corner
from hesskit.plots._correlation import correlation
from hesskit.plots._fit import fit

__all__ = ["convergence", "corner", "correlation", "fit"]
