"""Nodes by type, whatever names the tree uses."""

import jax.numpy as jnp
import optax

import hesskit
from hesskit.core import found
from hesskit.core.line_search import LineSearchInfo


def test_states_and_infos_are_found_inside_other_states():
    params = {"info": jnp.ones(2), "value": jnp.ones(())}
    opt = optax.chain(optax.trace(0.9), hesskit.newton_cg(), hesskit.scale_by_lbfgs())
    state = opt.init(params)
    assert found.nodes(state, found.is_state) == [state[1]]
    infos = found.nodes(state, found.is_info)
    assert [type(info).__name__ for info in infos] == ["NewtonCGInfo", "LineSearchInfo"]
    assert found.nodes(optax.adam(1.0).init(params), found.is_state) == []


def test_what_is_no_info():
    assert not found.is_info((1, 2))
    assert not found.is_info(optax.EmptyState())
    assert found.is_info(LineSearchInfo(*range(len(LineSearchInfo._fields))))
