"""Names of entries follow the order of vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from hesskit.core.entries import as_rows, as_vector, entry_names, per_entry

PARAMS = {"a": 1.0, "w": jnp.arange(6.0).reshape(2, 3), "z": jnp.array([1 + 2j, 3 + 4j])}


def test_names_are_those_of_the_vector():
    params = jax.tree.map(jnp.asarray, PARAMS)
    names, vector = entry_names(params), as_vector(params)
    found = dict(zip(names, vector.tolist(), strict=True))
    assert found["a"] == 1
    assert found["w[1, 2]"] == params["w"][1, 2]
    assert (found["z.real[1]"], found["z.imag[0]"]) == (3, 2)
    assert len(names) == vector.size == 11


def test_a_bare_array_and_a_bare_scalar():
    assert entry_names(jnp.zeros(2)) == ("params[0]", "params[1]")
    assert entry_names(jnp.zeros(())) == ("params",)


def test_flags_of_leaves_become_flags_of_entries():
    params = {"a": jnp.zeros(()), "w": jnp.zeros(2), "z": jnp.zeros(1, complex)}
    assert per_entry((True, False, True), params) == (True, False, False, True, True)


def test_rows_of_many():
    many = {"a": jnp.arange(3.0), "w": jnp.ones((3, 2))}
    np.testing.assert_array_equal(as_rows(many), [[0, 1, 1], [1, 1, 1], [2, 1, 1]])
