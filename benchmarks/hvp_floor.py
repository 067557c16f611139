"""What does one Hessian product inside a CG loop cost, beside its FLOP floor?

    python -m benchmarks.hvp_floor

The unit is one value and gradient. With the primal shared, a product carries a tangent through the
forward and the backward pass, twice the matrix products of each: 2.0 of the unit for a transformer
or a PINN. The inputs of an MLP carry no tangent, so its first layer costs 2 where the unit spends
2, and the others 6 where it spends 3: between 1.0 and 2.0 by their sizes, 1.5 in design.md. The
floor of each net is XLA's own count: FLOPs of a program with two products less those of one with
one, over those of a value and gradient. Seconds are those of `linalg.cg` with many products less
those with few, so that neither the primal nor the start of the loop counts, each the least of its
interleaved rounds: noise only adds, and a difference of medians doubles it.
"""

import jax

from benchmarks import _nets
from benchmarks._timing import Target, flops, interleaved, report
from hesskit.core import pseudo_random, tree
from hesskit.core.derivatives import linearized
from hesskit.linalg.cg import cg

FEW, MANY = 2, 10
SHARE = 0.5  # CG sees I + SHARE H / |H|: no negative curvature, and MANY products to converge
FLOOR = {"mlp": 1.5, "transformer": 2.0, "pinn": 2.0}


def products_by_linearize(loss, params):
    """Ours: linearized outside the loop."""
    return linearized(loss, params).product


def products_by_jvp(loss, params):
    """The textbook: forward over reverse, the primal inside the loop."""
    return lambda v: jax.jvp(jax.grad(loss), (params,), (v,))[1]


def products_by_vjp(loss, params):
    """Reverse over reverse."""
    return lambda v: jax.vjp(jax.grad(loss), params)[1](v)[0]


KINDS = {
    "hesskit": products_by_linearize,
    "jvp of grad": products_by_jvp,
    "vjp of grad": products_by_vjp,
}


def solver(kind, loss, scale):
    """A CG run of `num` products of I + scale H, one program for every `num`."""

    def run(params, b, num):
        product = KINDS[kind](loss, params)
        return cg(lambda v: tree.axpy(scale, product(v), v), b, tol=0.0, max_products=num)

    return jax.jit(run)


def largest(loss, params, v):
    """The size of the Hessian, by a few power iterations."""

    @jax.jit
    def multiply(params, v):
        hv = linearized(loss, params).product(v)
        return tree.scale(1 / tree.norm(hv), hv), tree.norm(hv)

    for _ in range(8):
        v, size = multiply(params, v)
    return float(size)


def linear_flops(loss, params, b):
    """FLOPs of one product beyond the primal."""

    def run(num):
        def call(params, vectors):
            product = linearized(loss, params).product
            return [product(v) for v in vectors[:num]]

        return flops(call, params, [tree.scale(k, b) for k in (1.0, 2.0)][:num])

    return run(2) - run(1)


def measure(name, net):
    loss, params = net
    b = pseudo_random.like(params)
    unit = flops(jax.value_and_grad(loss), params)
    floor = linear_flops(loss, params, b) / unit
    gradient = jax.jit(jax.value_and_grad(loss))
    scale = SHARE / largest(loss, params, b)
    calls = {"gradient": lambda: gradient(params)}
    for kind in KINDS:
        run = solver(kind, loss, scale)
        for num in (FEW, MANY):
            assert int(run(params, b, num).num_products) == num
            calls[f"{kind} {num}"] = lambda run=run, num=num: run(params, b, num)
    seconds = interleaved(calls, rounds=5)
    rows, found = [], {}
    for kind in KINDS:
        few, many = (min(seconds[f"{kind} {num}"]) for num in (FEW, MANY))
        found[kind] = (many - few) / (MANY - FEW) / min(seconds["gradient"])
        rows.append(
            {
                "net": name,
                "n": _nets.size(params),
                "product by": kind,
                "gradients": found[kind],
                "floor by design": FLOOR[name],
                "floor by XLA": floor,
                "over XLA's": found[kind] / floor,
                "gradient [ms]": 1e3 * min(seconds["gradient"]),
            }
        )
    return rows, Target(f"{name}: product over its floor", found["hesskit"] / floor, 1.1)


def main():
    nets = {"mlp": _nets.mlp(batch=512), "transformer": _nets.transformer(), "pinn": _nets.pinn()}
    results = [measure(name, net) for name, net in nets.items()]
    rows = [row for part, _ in results for row in part]
    report("hvp_floor", __doc__.splitlines()[0], rows, [target for _, target in results])


if __name__ == "__main__":
    main()
