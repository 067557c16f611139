"""How arrays lie on devices, where a program names the axes of its mesh.

With explicit axes the type of an array says how it is laid out, and operations that mix layouts
must be told what comes out; with automatic ones the compiler decides, and nothing here acts.
"""

import jax

from hesskit.core.types import Array


def like(x: Array, model: Array) -> Array:
    """`x` laid out as `model` where axes are explicit; `x` itself where the compiler decides."""
    sharding = explicit(model)
    if sharding is None or sharding == jax.typeof(x).sharding:
        return x
    return jax.sharding.reshard(x, sharding)


def on_mesh(x: Array) -> bool:
    """Whether `x` lies on the devices of a mesh, by explicit or automatic axes."""
    return not jax.typeof(x).sharding.mesh.empty


def explicit(model: Array) -> jax.sharding.NamedSharding | None:
    """The layout of `model` where some axis is explicit; None where the compiler decides."""
    sharding = jax.typeof(model).sharding
    return sharding if any(entry is not None for entry in sharding.spec) else None


def replicated(model: Array, ndim: int) -> jax.sharding.NamedSharding | None:
    """The layout of an array of `ndim` axes with a copy on each device of `model`, or None."""
    sharding = explicit(model)
    return None if sharding is None else sharding.update(spec=jax.P(*[None] * ndim))


def gathered(x: Array) -> Array:
    """`x` with a copy on each device."""
    sharding = replicated(x, x.ndim)
    return x if sharding is None else jax.sharding.reshard(x, sharding)
