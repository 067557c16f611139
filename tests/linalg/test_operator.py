"""A preconditioner is three pure functions; the one built here fulfills what their doc asks."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core import tree
from hesskit.linalg.operator import Preconditioner
from hesskit.linalg.steihaug import steihaug

MATRIX = np.diag([1.0, 10.0, 100.0, 1000.0]).astype("float32")
PARAMS = {"a": jnp.ones(2), "b": jnp.ones(2)}


def product(v):
    return tree.unravel(jnp.asarray(MATRIX) @ tree.ravel(v), v)


def diagonal() -> Preconditioner:
    """The exact diagonal, from one product with the vector of ones (MATRIX is diagonal)."""
    return Preconditioner(
        init=lambda params: tree.zeros_like(params),
        update=lambda state, product, params: product(jax.tree.map(jnp.ones_like, params)),
        apply=lambda state, vector, damping: jax.tree.map(
            lambda m, v: v / (m + damping), state, vector
        ),
    )


def test_state_has_the_shapes_of_init_and_apply_is_symmetric_positive_definite():
    made = diagonal()
    state = made.update(made.init(PARAMS), product, PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(made.init(PARAMS))
    columns = [
        tree.ravel(made.apply(state, tree.unravel(e, PARAMS), jnp.float32(1.0))) for e in jnp.eye(4)
    ]
    inverse = np.stack(columns)
    np.testing.assert_allclose(inverse, np.linalg.inv(MATRIX + np.eye(4)), rtol=1e-6)


def test_the_exact_inverse_solves_in_one_product():
    made = diagonal()
    state = made.update(made.init(PARAMS), product, PARAMS)
    found = steihaug(
        product,
        PARAMS,
        jnp.float32(1e6),
        tol=jnp.float32(1e-6),
        max_products=10,
        precondition=lambda v: made.apply(state, v, jnp.zeros(())),
    )
    assert found.num_products == 1
    np.testing.assert_allclose(
        tree.ravel(found.step), -np.linalg.solve(MATRIX, np.ones(4)), rtol=1e-5
    )
