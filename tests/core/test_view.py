"""What rearranging a leaf leaves known of its axes."""

import jax
import jax.numpy as jnp
import pytest

from hesskit.core.graph import trace
from hesskit.core.view import at_step, of_leaf

LEAF = jnp.zeros((2, 3, 1, 4))


@pytest.mark.parametrize(
    ("move", "axes"),
    [
        (lambda a: a, ((0,), (1,), (), (3,))),
        (lambda a: a.reshape(6, 4), ((0, 1), (3,))),
        (lambda a: a.reshape(2, 1, 12).T, ((1, 3), (), (0,))),
        (lambda a: a.squeeze(2).astype(jnp.bfloat16), ((0,), (1,), (3,))),
        (lambda a: jnp.broadcast_to(a, (5, 2, 3, 7, 4)), ((), (0,), (1,), (), (3,))),
        (lambda a: a.reshape(3, 8), None),
        (lambda a: 2 * a, None),
    ],
)
def test_axes_of_a_rearranged_leaf(move, axes):
    found = trace(lambda p: jax.lax.sin(move(p)), LEAF)
    last = found.nodes[-1].inputs[0]
    assert (found.views[last].axes if last in found.views else None) == axes


def test_a_leaf_begins_with_its_own_axes():
    assert of_leaf(3, (1, 5)).axes == ((), (1,))


def test_a_slice_of_a_leaf_is_a_leaf_of_its_own():
    seen = at_step(of_leaf(3, (5, 2, 1)), 5, sliced=True, carries=True)
    assert seen == (3, (2, 1), ((0,), ()), ((5, "layers"),))
    again = at_step(seen, 7, sliced=False, carries=False)
    assert again == seen._replace(loops=((5, "layers"), (7, "parts")))
    repeated = of_leaf(3, (2,))._replace(axes=((), (0,)))
    found = at_step(repeated, 7, sliced=True, carries=True)
    assert found == (3, (2,), ((0,),), ((7, "steps"),))
    across = of_leaf(0, (5, 2))._replace(axes=((1,), (0,)))
    assert at_step(across, 2, sliced=True, carries=True) is None
