"""The minimizer in a plane."""

import jax.numpy as jnp
import numpy as np

from hesskit.linalg.subspace import plane_minimizer


def test_the_minimizer_in_two_directions():
    a, b, c, p, q = 2.0, 0.5, 1.5, 1.0, -3.0
    found = plane_minimizer(*(jnp.asarray(v, jnp.float32) for v in (a, b, c, p, q)))
    np.testing.assert_allclose(found, np.linalg.solve([[a, b], [b, c]], [p, q]), rtol=1e-5)


def test_without_a_second_direction_or_with_the_same_one_it_is_the_first():
    for b, c, q in ((0.0, 0.0, 0.0), (2.0, 2.0, 1.0)):
        found = plane_minimizer(*(jnp.asarray(v, jnp.float32) for v in (2.0, b, c, 1.0, q)))
        np.testing.assert_allclose(found, (0.5, 0.0))
