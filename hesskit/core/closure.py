r"""What a function closes over, as an argument of its own.

    f = g(c, .)  with c whatever tracers and arrays f meets in its closure   (1)

A rule for derivatives knows the arguments of a function only, and who writes
`jax.grad(lambda t: minimize(lambda x: f(x, t), x0).value)` closes over t.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer, eval_context, eval_jaxpr
from jax.extend.core import get_opaque_trace_state


class Hoisted:
    """The g of (1) as a program for arguments of certain shapes: `hoisted(consts, *args)`.

    Attributes:
      consts: the c of (1), with the tracers of every kind of number: labels are data too.
    """

    def __init__(self, fn: Callable[..., Any], *examples: Any) -> None:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*examples)
        self._jaxpr, self._structure = program.jaxpr, jax.tree.structure(shapes)
        self.consts = tuple(program.consts)

    def __call__(self, consts: tuple[Any, ...], *args: Any) -> Any:
        """The value of `fn(*args)` as a function of `consts` too."""
        out = eval_jaxpr(self._jaxpr, consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(self._structure, out)

    @property
    def has_tracers(self) -> bool:
        """Whether a derivative or another transformation may flow through the closure."""
        return any(isinstance(const, Tracer) for const in self.consts)


def is_eager() -> bool:
    """Whether no transformation of JAX is at work around the caller: then there are no tracers."""
    here = get_opaque_trace_state(convention="flax")
    with eval_context():
        return here == get_opaque_trace_state(convention="flax")
