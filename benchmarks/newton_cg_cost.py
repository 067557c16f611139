"""What does a step of newton_cg cost at 100,000 parameters, in gradients?

    python -m benchmarks.newton_cg_cost

An accepted step may cost its products and 1.5 gradients, a rejected one 1.5 gradients and no
product; both as the solvers run it (`tell` of the machine) and through `update`. A rejection is
made by a wall: a term that is zero to second order at the kept point, and huge at the trial.
A product is counted as many gradients as its own seconds say (benchmarks/hvp_floor.py), so the
rest of the step, beside evaluation and products, is what the target bounds.
"""

import jax

import hesskit
from benchmarks import _nets
from benchmarks._timing import Target, interleaved, report
from hesskit.core import pseudo_random, tree
from hesskit.core.derivatives import linearized

FEW, MANY = 2, 10
MAX_PRODUCTS = 10
WALL = 1e30


def walled(loss, anchor):
    """The loss, and `wall` times the fourth power of how far one entry is from the anchor's."""
    first = jax.tree.leaves(anchor)[0].reshape(-1)[0]

    def fn(params, wall):
        return loss(params) + wall * (jax.tree.leaves(params)[0].reshape(-1)[0] - first) ** 4

    return fn


def repeated_products(loss, num):
    """`num` products in a row at one point, each of the one before."""

    def run(params, v):
        product = linearized(loss, params).product
        return jax.lax.fori_loop(0, num, lambda _, v: tree.axpy(1.0, v, product(v)), v)

    return jax.jit(run)


def by_method(optimizer, fn, params):
    """`tell` from the state that has a model and a trial."""
    run = optimizer.method

    @jax.jit
    def tell(state, wall):
        return run.tell(state, linearized(lambda p: fn(p, wall), run.ask(state)))

    ready = tell(jax.jit(run.start)(params), 0.0)
    return (lambda wall: tell(ready, wall)), (lambda wall: tell(ready, wall).info)


def by_update(optimizer, fn, params):
    """`update`: a new model and a trial, or after a rejection the kept model and a trial."""
    value_and_grad = jax.jit(jax.value_and_grad(fn))

    @jax.jit
    def update(state, params, value, grad, wall):
        return optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=fn, args=(wall,)
        )

    value, grad = value_and_grad(params, 0.0)
    first = optimizer.init(params)
    rejected = update(first, params, value, grad, WALL)[1]
    states = {0.0: first, WALL: rejected}
    return (
        lambda wall: update(states[wall], params, value, grad, wall),
        lambda wall: update(states[wall], params, value, grad, wall)[1].info,
    )


def main():
    net = _nets.mlp((64, 256, 256, 64), 512)
    fn = walled(net.loss, net.params)
    optimizer = hesskit.newton_cg(max_products=MAX_PRODUCTS)
    gradient = jax.jit(jax.value_and_grad(net.loss))
    v = pseudo_random.like(net.params)
    few, many = (repeated_products(net.loss, num) for num in (FEW, MANY))
    calls = {
        "gradient": lambda: gradient(net.params),
        "few": lambda: few(net.params, v),
        "many": lambda: many(net.params, v),
    }
    infos = {}
    for face, build in (("method", by_method), ("update", by_update)):
        run, look = build(optimizer, fn, net.params)
        for kind, wall in (("accepted", 0.0), ("rejected", WALL)):
            infos[face, kind] = look(wall)
            calls[f"{face} {kind}"] = lambda run=run, wall=wall: run(wall)
    seconds = interleaved(calls, rounds=9)
    least = {key: min(each) for key, each in seconds.items()}  # noise only adds
    product = (least["many"] - least["few"]) / (MANY - FEW) / least["gradient"]
    rows, targets = [], []
    for (face, kind), info in infos.items():
        assert bool(info.accepted) == (kind == "accepted"), (face, kind)
        products = int(info.num_products)
        spent = least[f"{face} {kind}"]
        total = spent / least["gradient"]
        rest = total - products * product
        rows.append(
            {
                "step": f"{face}, {kind}",
                "n": tree.size(net.params),
                "ms": 1e3 * spent,
                "gradients": total,
                "products": products,
                "gradients a product": product,
                "rest in gradients": rest,
                "gradients evaluated": int(info.num_grads),
            }
        )
        targets.append(Target(f"{face}, {kind}: gradients beside the products", rest, 1.5))
        if kind == "rejected":
            targets.append(Target(f"{face}, rejected: products", products, 0))
    report("newton_cg_cost", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
