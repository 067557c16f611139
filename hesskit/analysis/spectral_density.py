r"""How are the eigenvalues of a large matrix distributed?

The spectral density  phi(t) = 1/n sum_i delta(t - w_i)  as random probes see it: each gives a rule
of k nodes and weights (linalg/quadrature.py), and the mean over probes is an estimate,

    1/n sum_i f(w_i)  ~  mean of  sum_j weight_j f(node_j),     sum_j weight_j = 1        (1)

unbiased for the moments up to 2k - 1, and with a standard error from the spread of the probes.

Source: Lin, Saad & Yang (2016), SIAM Review 58, 34-65; Ubaru, Chen & Saad (2017), SIAM J. Matrix
Anal. Appl. 38, 1075-1099; Ghorbani, Krishnan & Xiao (2019), ICML (of trained networks).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hesskit.analysis import _entry, _spectrum
from hesskit.core import answer
from hesskit.core.types import Array, Params
from hesskit.linalg.stochastic import Estimate, summary

GRID = 200
"""Points of a grid."""
WIDTHS = 50
"""The width of a bump by default: the range over this many."""
OUTLIER = 0.1
"""An eigenvalue of more than this share of the largest modulus counts as an outlier."""


def _plus_minus(found: Estimate) -> str:
    return f"{float(found.value):.4g} +- {float(found.standard_error):.1g}"


def _lines(found: "SpectralDensity") -> list[str]:
    low, high = found.ends
    return [
        f"spectral density of {int(found.size)} eigenvalues, from {float(low):.4g} to "
        f"{float(high):.4g}",
        f"mean {_plus_minus(found.moment(1))}, mean square {_plus_minus(found.moment(2))}",
        f"share of negative eigenvalues {_plus_minus(found.negative_mass)}",
        f"outliers beyond a tenth of the largest {_plus_minus(found.outliers)}",
        f"{found.nodes.shape[-2]} probes of {found.nodes.shape[-1]} products",
    ]


@answer.printed("size", _lines)
class SpectralDensity(NamedTuple):
    """The answer of `spectral_density`; `print` it.

    Attributes:
      nodes: of each probe, ascending, (num_probes, num_steps); NaN where a product was not finite.
      weights: of the nodes, of sum 1 for each probe.
      size: n, (), int32.
      num_products: products spent, (), int32.
    """

    nodes: Array
    weights: Array
    size: Array
    num_products: Array

    @property
    def ends(self) -> tuple[Array, Array]:
        """The lowest and highest node that has weight: bounds of the spectrum from inside."""
        seen = self.weights > jnp.finfo(self.weights.dtype).eps
        low = jnp.min(jnp.where(seen, self.nodes, jnp.inf))
        return low, jnp.max(jnp.where(seen, self.nodes, -jnp.inf))

    def mean(self, fn: Callable[[Array], Array]) -> Estimate:
        """The mean of `fn`, elementwise, over all eigenvalues, with its standard error."""
        values = jnp.where(self.weights > 0, fn(self.nodes), 0)
        return summary(jnp.sum(self.weights * values, axis=1), self.nodes.size)

    def moment(self, order: int) -> Estimate:
        """The mean of the eigenvalues to the power `order`."""
        return self.mean(lambda t: t**order)

    def mass(self, low: Any = -jnp.inf, high: Any = jnp.inf) -> Estimate:
        """The share of eigenvalues in [low, high]."""
        return self.mean(lambda t: ((t >= low) & (t <= high)).astype(t.dtype))

    @property
    def negative_mass(self) -> Estimate:
        """The share of eigenvalues below zero by more than rounding."""
        low, high = self.ends
        largest = jnp.maximum(jnp.abs(low), jnp.abs(high))
        return self.mass(high=-(jnp.finfo(self.nodes.dtype).eps ** (2 / 3)) * largest)

    @property
    def outliers(self) -> Estimate:
        """The number of eigenvalues beyond a tenth of the largest modulus."""
        low, high = self.ends
        edge = OUTLIER * jnp.maximum(jnp.abs(low), jnp.abs(high))
        share = self.mean(lambda t: (jnp.abs(t) > edge).astype(t.dtype))
        scale = self.size.astype(self.nodes.dtype)
        return share._replace(
            value=scale * share.value, standard_error=scale * share.standard_error
        )

    def density(self, grid: Any = None, *, width: Any = None) -> tuple[Array, Estimate]:
        """The density smoothed by normal bumps, which integrates to 1.

        Args:
          grid: where, (m,); None means 200 points over the spectrum and three widths beyond.
          width: standard deviation of a bump; None means a fiftieth of the range. At least 100
            roundings of the largest eigenvalue.

        Returns:
          The grid and an `Estimate` of (m,) densities.
        """
        low, high = self.ends
        sigma = jnp.asarray((high - low) / WIDTHS if width is None else width, self.nodes.dtype)
        info, size = jnp.finfo(sigma.dtype), jnp.maximum(jnp.abs(low), jnp.abs(high))
        sigma = jnp.maximum(sigma, jnp.maximum(100 * info.eps * size, info.tiny / info.eps))
        if grid is None:
            grid = jnp.linspace(low - 3 * sigma, high + 3 * sigma, GRID)
        grid = jnp.asarray(grid, self.nodes.dtype)

        def at(point: Array) -> Estimate:
            return self.mean(lambda t: jax.scipy.stats.norm.pdf(t, point, sigma))

        return grid, jax.lax.map(at, grid)


def spectral_density(
    subject: Any,
    params: Params = None,
    *,
    args: Any = (),
    batches: Any = None,
    num_probes: int = 10,
    num_steps: int = 50,
    key: Any = 0,
    block_size: int | None = None,
) -> SpectralDensity:
    r"""The distribution of all eigenvalues of a Hessian, an operator or a matrix.

    Stochastic Lanczos quadrature: `num_probes` times `num_steps` products and the memory of a few
    vectors, so that n may be millions. The error of a mean over eigenvalues falls as
    (n num_probes)^(-1/2); `num_steps` is the resolution, finest at the ends.

    Args:
      subject: `value_fn(params, ...) -> ()`, whose Hessian is meant; an `Operator`; or a symmetric
        matrix.
      params: the point, for a function.
      args: its data: a tuple, positional after params, or a dict, by name.
      batches: data in batches in place of args, as in `hesskit.hessian_operator`.
      num_probes: independent random vectors; at least 2 for standard errors.
      num_steps: products of each; at most n are spent.
      key: an int or a key, of the probes.
      block_size: probes mapped at once; None means one after another, as always where batches are
        a list or a function.

    Returns:
      A `SpectralDensity`, in at least float32: `density()`, `moment(k)`, `mass(low, high)`,
      `negative_mass`, `outliers`, each with a standard error.

    Raises:
      TypeError: a function without a point, or none of the three.
      ValueError: a matrix that is not square or not symmetric; an argument out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> found = hesskit.spectral_density(jnp.diag(jnp.linspace(-1.0, 3.0, 200)))
      >>> print(found.moment(1).value.round(3), found.weights.sum(1)[0].round(3))
      1.0 1.0

    References:
      Ubaru, Chen & Saad (2017), SIAM J. Matrix Anal. Appl. 38, 1075-1099.
    """
    op = _entry.as_operator(subject, params, args=args, batches=batches, caller="spectral_density")
    rules = _spectrum.quadratures(op, num_probes, num_steps, key, block_size)
    return SpectralDensity(
        nodes=rules.nodes,
        weights=rules.weights,
        size=jnp.asarray(_entry.size_of(op), jnp.int32),
        num_products=jnp.asarray(rules.nodes.size, jnp.int32),
    )
