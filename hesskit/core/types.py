"""The few type names that every layer shares."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

Array = jax.Array
Params = Any
"""Any pytree of arrays: what is optimized, and any vector of that shape."""
Scalar = ArrayLike
"""A () array or a Python number."""
ValueFn = Callable[..., Array]
"""`value_fn(params, ...) -> ()`, the objective."""
Product = Callable[[Params], Params]
"""A symmetric linear map on the space of `params`: matrix times vector."""
