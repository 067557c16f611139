"""Does K-FAC train nets in mini-batches faster than AdamW and Muon, and what does a step cost?

    python -m benchmarks.deep_nets [--steps 500] [--seeds 3] [--problems convolutional,transformer]

A convolutional classifier of digits and a small transformer on the text of Python's help
(`_deep_nets.py`), float32, batches of 64 images and of 32 pieces of 32 characters. Every method has
the same rates, each with a cosine that ends at 0, and `hesskit.kfac` each with three dampings. What
gives the lowest validation loss at the end, from one start (the classifier: the mean of four), is
run from other starts over other batches, the same for all: their means are shown. K-FAC has
momentum 0.9 and the norm constraint 1e-3 as published; optax.contrib has Muon, and no SOAP. Without
a learning rate K-FAC finds length, momentum and damping itself: nothing is tuned, and it takes
batches eight times as large, for as many examples in all.

The goal is the validation loss of AdamW at its end; the early goal that after a fifth of its steps.
Seconds are CPU seconds on one core: a step's, the median of interleaved rounds, times steps. Memory
is that of the compiled step beside its arguments, and the bytes of the optimizer's state over those
of the parameters. A run writes its problems into results/deep_nets.json, with the curves, leaves
the other there as it is, and draws deep_nets.png beside it.

Targets: K-FAC with a rate reaches both goals in no more steps, and in no more seconds, than AdamW.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax

import hesskit
from benchmarks._deep_nets import PROBLEMS, Problem
from benchmarks._timing import RESULTS, Target, hold_one_core, interleaved, ratio, report

QUESTION = __doc__.splitlines()[0]
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
DAMPINGS = (1e-3, 1e-2, 1e-1)
EVERY = 10
"""Steps between validation losses, and of a timed call: two renewals of K-FAC's factors."""
ROUNDS = 5
DECAY = 1e-4  # optax.adamw's, for all


class Method(NamedTuple):
    """How steps are made.

    Attributes:
      make: `(schedule, damping) -> transform`.
      dampings: those tried; None where there is none to choose.
      larger: how many times the batch of the others it takes, at no rate.
    """

    make: Callable[[Any, Any], Any]
    dampings: tuple[float | None, ...] = (None,)
    larger: int = 1

    @property
    def choices(self) -> list[tuple[float, float | None]]:
        """Rates and dampings to choose from."""
        rates = RATES if self.larger == 1 else (0.0,)
        return [(rate, damping) for damping in self.dampings for rate in rates]


METHODS = {
    "optax.adamw": Method(lambda rate, _: optax.adamw(rate, weight_decay=DECAY)),
    "optax.contrib.muon": Method(lambda rate, _: optax.contrib.muon(rate, weight_decay=DECAY)),
    "hesskit.kfac": Method(
        lambda rate, damping: hesskit.kfac(
            rate, damping=damping, momentum=0.9, norm_constraint=1e-3, weight_decay=DECAY
        ),
        DAMPINGS,
    ),
    "hesskit.kfac, no rate": Method(lambda *_: hesskit.kfac(weight_decay=DECAY), larger=8),
}
"""The first is the one to beat."""
COLORS = dict(zip(METHODS, ("#777777", "#0072B2", "#D55E00", "#009E73"), strict=True))


class Trainer:
    """A method on a problem, compiled."""

    def __init__(self, problem: Problem, method: Method, steps: int):
        self.problem, self.method, self.steps = problem, method, steps // method.larger
        loss, draw = problem.loss, problem.batch

        def advance(carry: Any, key: Any, rate: Any, damping: Any) -> Any:
            params, state = carry
            data = draw(key, method.larger * problem.size)
            value, grad = jax.value_and_grad(loss)(params, *data)
            opt = self._transform(rate, damping)
            updates, state = opt.update(
                grad, state, params, value=value, grad=grad, value_fn=loss, args=data
            )
            return optax.apply_updates(params, updates), state

        carry, key = self.begin(jax.random.key(0)), jax.random.key(0)
        begin = time.process_time()
        self.step = jax.jit(advance).lower(carry, key, *self._numbers(0.0, 1.0)).compile()
        self.compile_seconds = time.process_time() - begin
        self.held_out = jax.jit(lambda params: loss(params, *problem.held_out))

    @staticmethod
    def _numbers(rate: float, damping: float | None) -> tuple[jax.Array, jax.Array]:
        return jnp.float32(rate), jnp.float32(0.0 if damping is None else damping)

    def _transform(self, rate: Any, damping: Any) -> Any:
        cosine = optax.cosine_decay_schedule(1.0, self.steps)
        return optax.with_extra_args_support(
            self.method.make(lambda count: rate * cosine(count), damping)
        )

    def begin(self, key: jax.Array) -> Any:
        """Parameters and state."""
        params = self.problem.start(key)
        return params, self._transform(*self._numbers(0.0, 1.0)).init(params)

    def run(self, rate: float, damping: float | None, seed: int) -> list[float]:
        """Validation losses, at the start and after every so many steps."""
        first, keys = jax.random.split(jax.random.key(seed))
        carry, numbers = self.begin(first), self._numbers(rate, damping)
        found = [float(self.held_out(carry[0]))]
        for count, key in enumerate(jax.random.split(keys, self.steps), 1):
            carry = self.step(carry, key, *numbers)
            if count % self.every == 0:
                found.append(float(self.held_out(carry[0])))
        return found

    @property
    def every(self) -> int:
        return max(1, EVERY // self.method.larger)

    def timed(self, rate: float, damping: float | None) -> Callable[[], Any]:
        """A call of `EVERY` steps, from a carry that has seen as many."""
        keys, numbers = jax.random.split(jax.random.key(0), EVERY), self._numbers(rate, damping)

        def call(carry: Any) -> Any:
            for key in keys:
                carry = self.step(carry, key, *numbers)
            return carry

        return functools.partial(call, call(self.begin(jax.random.key(0))))

    def memory(self) -> dict[str, float]:
        """Of the compiled step and of its state."""
        params, state = self.begin(jax.random.key(0))
        size = lambda data: sum(leaf.nbytes for leaf in jax.tree.leaves(data))
        return {
            "compile, CPU s": self.compile_seconds,
            "state over params": size(state) / size(params),
            "temporary MB": self.step.memory_analysis().temp_size_in_bytes / 1e6,
        }


def tuned(trainer: Trainer) -> tuple[float, float | None]:
    """The rate and damping with the lowest validation loss at the end."""
    choices = trainer.method.choices
    if len(choices) == 1:
        return choices[0]
    seeds = range(100, 100 + trainer.problem.tries)
    last = [np.mean([trainer.run(*choice, seed)[-1] for seed in seeds]) for choice in choices]
    return choices[int(np.argmin(np.nan_to_num(last, nan=np.inf)))]


def reached(curve: Any, every: int, goal: float) -> float:
    """Steps to the goal."""
    good = np.flatnonzero(np.asarray(curve) <= goal)
    return float(good[0] * every) if len(good) else np.inf


def measure(name: str, steps: int, seeds: int) -> list[dict[str, Any]]:
    """A row for each method, with its curve."""
    trainers = {m: Trainer(PROBLEMS[name](), method, steps) for m, method in METHODS.items()}
    chosen = {m: tuned(trainer) for m, trainer in trainers.items()}
    calls = {m: trainer.timed(*chosen[m]) for m, trainer in trainers.items()}
    clock = interleaved(calls, rounds=ROUNDS, clock=time.process_time)
    first = next(iter(METHODS))
    rows, goal, early, budget = [], np.inf, np.inf, np.inf
    for m, trainer in trainers.items():
        rate, damping = chosen[m]
        runs = [trainer.run(rate, damping, seed) for seed in range(1, seeds + 1)]
        curve, every = np.mean(runs, axis=0), trainer.every
        seconds = float(np.median(clock[m])) / EVERY
        if m == first:
            goal, early, budget = curve[-1], curve[len(curve) // 5], steps * seconds
        within = min(len(curve) - 1, int(budget / seconds) // every)
        to_early, to_goal = (reached(curve, every, x) for x in (early, goal))
        rows.append(
            {
                "problem": name,
                "method": m,
                "rate": rate or None,
                "damping": damping,
                "at an edge": trainer.method.larger == 1 and rate in (RATES[0], RATES[-1]),
                "steps": trainer.steps,
                "loss at the end": float(curve[-1]),
                "loss in AdamW's time": float(curve[within]),
                "steps to the early goal": to_early,
                "s to the early goal": to_early * seconds,
                "steps to the goal": to_goal,
                "s to the goal": to_goal * seconds,
                "ms a step": 1e3 * seconds,
                "over AdamW's": ratio(clock[m], clock[first]),
                **trainer.memory(),
                "curve": [(i * every, float(f"{x:.4g}")) for i, x in enumerate(curve)],
            }
        )
        print(f"{name}, {m}: {curve[-1]:.4g} at the end", flush=True)
    return rows


def targets(rows: list[dict[str, Any]]) -> list[Target]:
    """Steps and seconds of K-FAC with a rate over AdamW's."""
    found = []
    for name in dict.fromkeys(row["problem"] for row in rows):
        own = {row["method"]: row for row in rows if row["problem"] == name}
        adamw, kfac = own["optax.adamw"], own["hesskit.kfac"]
        for key in ("early goal", "goal"):
            for unit in ("steps", "s"):
                what = f"{unit} to the {key}"
                said = f"{name}: {what}, K-FAC's over AdamW's"
                found.append(Target(said, kfac[what] / adamw[what], 1.0))
    return found


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Validation loss against steps and against seconds, a line of panels for each problem."""
    names = list(dict.fromkeys(row["problem"] for row in rows))
    figure, axes = plt.subplots(
        len(names), 2, figsize=(8.4, 3.4 * len(names)), sharey="row", squeeze=False
    )
    for (left, right), name in zip(axes, names, strict=True):
        for row in (row for row in rows if row["problem"] == name):
            steps, loss = np.array(row["curve"]).T
            style = {"color": COLORS[row["method"]], "label": row["method"], "lw": 1.6}
            left.plot(steps, loss, **style)
            right.plot(steps * row["ms a step"] / 1e3, loss, **style)
        left.set(title=name, xlabel="steps", ylabel="validation loss")
        right.set(title=name, xlabel="seconds of one core")
        for ax in (left, right):
            ax.set(yscale="log")
            ax.grid(color="0.9", linewidth=0.6, which="both")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Measures, prints, writes, draws."""
    hold_one_core()
    matplotlib.use("Agg")
    jax.config.update("jax_enable_compilation_cache", False)
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--problems", type=lambda text: text.split(","), default=[""])
    given = parser.parse_args()
    names = [name for name in PROBLEMS if any(word in name for word in given.problems)]
    path = RESULTS / "deep_nets.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    made = {name: measure(name, given.steps, given.seeds) for name in names}
    made = {name: [row for row in known if row["problem"] == name] for name in PROBLEMS} | made
    rows = [row for name in PROBLEMS for row in made[name]]
    report("deep_nets", QUESTION, rows, targets(rows))
    draw(rows, RESULTS / "deep_nets.png")


if __name__ == "__main__":
    main()
