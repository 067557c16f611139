"""Is a dense Hessian by chunks of products faster and smaller than jax.hessian?

    python -m benchmarks.dense_hessian

Nets of 1,000 to 2,000 parameters. Memory is what the compiled program needs beside its arguments
and its result.
"""

import statistics

import jax

from benchmarks import _nets
from benchmarks._timing import Target, compiled, interleaved, ratio, report
from hesskit.core import tree
from hesskit.core.derivatives import linearized
from hesskit.linalg.dense import dense

CHUNKS = (16, 64, 256)


def ours(loss, chunk_size=None):
    return lambda p: dense(linearized(loss, p).product, p, chunk_size=chunk_size)


def measure(name, net):
    loss, params = net
    calls = {"jax.hessian": jax.hessian(loss), "hesskit": ours(loss)}
    calls |= {f"chunks of {size}": ours(loss, size) for size in CHUNKS}
    programs = {key: compiled(call, params) for key, call in calls.items()}
    bytes_ = {
        key: program.memory_analysis().temp_size_in_bytes for key, program in programs.items()
    }
    seconds = interleaved(
        {key: lambda program=program: program(params) for key, program in programs.items()},
        rounds=3,
        least=0,
    )
    rows = [
        {
            "net": name,
            "n": tree.size(params),
            "by": key,
            "ms": 1e3 * statistics.median(seconds[key]),
            "of jax.hessian": ratio(seconds[key], seconds["jax.hessian"]),
            "MB": bytes_[key] / 1e6,
            "of its memory": bytes_[key] / bytes_["jax.hessian"],
        }
        for key in calls
    ]
    return rows, [
        Target(f"{name}: seconds of jax.hessian's", rows[1]["of jax.hessian"], 0.4),
        Target(f"{name}: memory of jax.hessian's", rows[1]["of its memory"], 0.1),
    ]


def main():
    nets = {
        "mlp": _nets.mlp((32, 32, 10), 128),
        "conv": _nets.conv(),
        "pinn": _nets.pinn((2, 32, 32, 1), 64),
    }
    results = [measure(name, net) for name, net in nets.items()]
    rows = [row for part, _ in results for row in part]
    targets = [target for _, part in results for target in part]
    report("dense_hessian", __doc__.splitlines()[0], rows, targets)


if __name__ == "__main__":
    main()
