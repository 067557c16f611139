"""The few type names that every layer shares."""

from collections.abc import Callable
from typing import Any

import chex
import jax

Array = jax.Array
Params = Any
"""Any pytree of arrays: what is optimized, and any vector of that shape."""
Scalar = chex.Numeric
"""A () array or a Python number."""
ValueFn = Callable[..., Array]
"""`value_fn(params, ...) -> ()`, the objective."""
Product = Callable[[Params], Params]
"""A symmetric linear map on the space of `params`: matrix times vector."""
