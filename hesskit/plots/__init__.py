"""Pictures: each is `plot(thing, ax=None, ...)`, makes Axes if there are none, and returns them."""

from hesskit.plots._contours import contours
from hesskit.plots._convergence import convergence
from hesskit.plots._corner import corner
from hesskit.plots._correlation import correlation
from hesskit.plots._curvature_1d import curvature_1d
from hesskit.plots._eigen_ellipse import eigen_ellipse
from hesskit.plots._fit import fit
from hesskit.plots._gradient_field import gradient_field
from hesskit.plots._landscape import landscape
from hesskit.plots._spectrum import spectrum
from hesskit.plots._surface import surface
from hesskit.plots._taylor import taylor
from hesskit.plots._trajectory import trajectory

__all__ = [
    "contours",
    "convergence",
    "corner",
    "correlation",
    "curvature_1d",
    "eigen_ellipse",
    "fit",
    "gradient_field",
    "landscape",
    "spectrum",
    "surface",
    "taylor",
    "trajectory",
]
