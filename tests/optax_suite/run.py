"""optax's own tests of L-BFGS, from the installed wheel, with `hesskit.lbfgs` in its place.

    python -m tests.optax_suite.run [-k PATTERN] [--optax] [-v]

The tests look the factory up when they run, so one assignment swaps it. `--optax` leaves optax's
own factory in, for comparison. The exit code is 0 if every case ended as `EXPECTED` says.
"""

import argparse
import importlib
import sys
import time
import unittest
import warnings
from pathlib import Path
from types import ModuleType

import jax

import hesskit

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "jax"  # that of the suite

CASES = (
    "test_against_plain_implementation",
    "test_against_scipy",
    "test_binary_logreg",
    "test_handling_pytrees",
    "test_lbfgs_complex",
    "test_lbfgs_complex_rosenbrock",
    "test_minimize_bad_initialization",
    "test_multiclass_logreg",
    "test_state_shape_dtype_shard_stability",
    "test_steep_objective",
)
"""All of `LBFGSTest` but test_plain_preconditioning and test_preconditioning_by_lbfgs_on_*, which
call private helpers of optax and not the factory."""

EXPECTED = {
    "test_against_plain_implementation9": "zakharov: plain ends at NaN, ours at finite params",
}
"""Cases that fail, and why. One that passes after all fails the run: take it out."""


class Result(unittest.TextTestResult):
    """Keeps the seconds of each case."""

    def startTest(self, test: unittest.TestCase) -> None:
        self._began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.seconds = {**getattr(self, "seconds", {}), short(test): time.monotonic() - self._began}


def short(test: unittest.TestCase) -> str:
    """The name of a case; that of a subTest is the case's."""
    return getattr(test, "test_case", test)._testMethodName


def load(tests: ModuleType, pattern: str) -> unittest.TestSuite:
    """The cases of `LBFGSTest` that call the factory and match."""
    names = unittest.TestLoader().getTestCaseNames(tests.LBFGSTest)
    chosen = [name for name in names if name.rstrip("0123456789") in CASES and pattern in name]
    return unittest.TestSuite(map(tests.LBFGSTest, chosen))


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-k", default="", metavar="PATTERN", help="only cases with this in the name"
    )
    parser.add_argument("--optax", action="store_true", help="with optax's own lbfgs")
    parser.add_argument("-v", action="store_true", help="a line for each case")
    options = parser.parse_args()

    jax.config.update("jax_platforms", "cpu")  # the tolerances are those of the CPU
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    calls = []

    def factory(*args: object, **kwargs: object) -> object:
        calls.append(kwargs)
        return hesskit.lbfgs(*args, **kwargs)

    if not options.optax:
        importlib.import_module("optax._src.alias").lbfgs = factory
    tests = importlib.import_module("optax._src.alias_test")
    warnings.simplefilter("ignore", FutureWarning)  # scikit-learn's, of the arguments they pass
    suite = load(tests, options.k)
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2 if options.v else 1)
    result = runner.run(suite)

    ran = set(result.seconds) if result.testsRun else set()
    failed = {short(test) for test, _ in result.failures + result.errors}
    expected = set() if options.optax else ran & set(EXPECTED)
    slowest = sorted(result.seconds.items(), key=lambda item: -item[1])[:3] if ran else []
    print(f"{len(ran) - len(failed)} of {len(ran)} pass; slowest:", slowest)
    for name in sorted(failed & expected):
        print(f"fails as expected: {name}: {EXPECTED[name]}")
    for name in sorted(expected - failed):
        print(f"PASSES, but EXPECTED says it fails: {name}")
    for name in sorted(failed - expected):
        print(f"FAILED: {name}")
    if not ran or (not options.optax and not calls):
        print("nothing ran with our factory")
        return 1
    return int(failed != expected)


if __name__ == "__main__":
    sys.exit(main())
