r"""What K-FAC makes of a model: one line for each leaf of params.

Source: core/blocks.py, which decides; linalg/kronecker_factors.py says what a block is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from hesskit.core import answer, blocks, errors, objective
from hesskit.core.structured import Structured
from hesskit.core.types import Params
from hesskit.linalg import whitened


class KroneckerRow(NamedTuple):
    """The block of one leaf.

    Attributes:
      path: of the leaf.
      leaf: its shape.
      kind: "kronecker", "joined", "sampled" or "diagonal".
      factors: shapes of its factors, of layers with their number in front; of a diagonal, that of
        the leaf.
      why: a few words.
    """

    path: str
    leaf: tuple[int, ...]
    kind: str
    factors: tuple[tuple[int, ...], ...]
    why: str


class KroneckerTable(NamedTuple):
    """The blocks of all leaves; `print` it.

    Attributes:
      rows: one `KroneckerRow` for each leaf.
    """

    rows: tuple[KroneckerRow, ...]

    def __repr__(self) -> str:
        """The table."""
        head = ("leaf", "shape", "block", "factors", "why")
        cells = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head) - 1)]
        lines = []
        for *first, last in cells:
            padded = [text.ljust(width) for text, width in zip(first, widths, strict=True)]
            lines.append("  ".join([*padded, last]).rstrip())
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return answer.preformatted(repr(self))


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


def _cells(row: KroneckerRow) -> tuple[str, ...]:
    factors = ", ".join(_text(shape) for shape in row.factors)
    return row.path or "params", _text(row.leaf), row.kind, factors, row.why


KNOWN = "in kfac with objective= and example="
"""Of a leaf of layers, or one cut elsewhere, which kfac cannot tell by its shape."""


def _row(
    block: blocks.Block, leaf: tuple[int, ...], found: tuple[blocks.Block, ...]
) -> KroneckerRow:
    shape = block.shape
    front = () if shape.layers is None else (shape.layers,)
    factors: tuple[tuple[int, ...], ...] = ()
    if block.has_factors:
        pairs = zip(block.lengths, shape.dense, strict=True)
        factors = tuple((*front, k, k) if full else (*front, k) for k, full in pairs)
    elif block.kind == "diagonal":
        factors = (leaf,)
    why = block.why
    if block.kind == "kronecker" and block.bias is not None:
        why += f", with {found[block.bias].path}"
    if front and block.kind != "joined":
        why += f"; by layer, {KNOWN}"
    elif block.has_factors and shape.split != blocks.shape_of(leaf, 1).split:
        why += f"; {KNOWN}"
    return KroneckerRow(block.path, leaf, block.kind, factors, why)


def kronecker_table(
    value_fn: Callable[..., Any],
    params: Params,
    *,
    args: Any = (),
    shared: str = "sum",
    max_factor_dim: int = blocks.MAX_DIM,
) -> KroneckerTable:
    r"""Which block of the curvature stands for which leaf in `hesskit.kfac`, and why.

    Nothing is computed: the model is traced at the shapes of params and data. Layers stacked for a
    `jax.lax.scan` have factors with their number in front. `kfac` has these, and those of some
    kernels of few channels and of vectors, if it is given `objective=` and `example=`.

    Args:
      value_fn: `hesskit.composite(...)`, `hesskit.least_squares_loss(...)` or a sum of such with
        `hesskit.l2`.
      params: a pytree of float arrays.
      args: data: a tuple, positional after params, or a dict, by name.
      shared: as in `hesskit.kfac`.
      max_factor_dim: as in `hesskit.kfac`.

    Returns:
      A `KroneckerTable`, to print.

    Raises:
      TypeError: the objective has no structure.
      ValueError: an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp, hesskit
      >>> model = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) * p["s"]
      >>> loss = hesskit.composite(hesskit.losses.squared_error(), model)
      >>> params = {"b": jnp.zeros(2), "s": jnp.ones(2), "w": jnp.ones((3, 2))}
      >>> print(hesskit.kronecker_table(loss, params, args=(jnp.ones((5, 3)), jnp.ones((5, 2)))))
      leaf   shape  block      factors   why
      ['b']  2      joined               bias of ['w']
      ['s']  2      diagonal   2         scale
      ['w']  3x2    kronecker  4x4, 2x2  dense, with ['b']

    References:
      Martens & Grosse (2015), ICML.
    """
    errors.check_callable(value_fn, name="value_fn")
    errors.check_data(args)
    errors.check_choice(shared, blocks.SHARED, name="shared")
    errors.check_count(max_factor_dim, name="max_factor_dim")
    params = errors.check_params(params)
    fn, point = objective.real(value_fn, params, args=args, caller="kronecker_table")
    if not isinstance(fn, Structured):
        raise TypeError(whitened.plain("kronecker_table", of_model=True))
    found = blocks.plan(lambda p: fn.inner(p)[0], point, max_dim=max_factor_dim, shared=shared)
    pairs = zip(found.blocks, jax.tree.leaves(point), strict=True)
    return KroneckerTable(tuple(_row(block, leaf.shape, found.blocks) for block, leaf in pairs))
