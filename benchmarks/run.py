"""All benchmarks, each in a process of its own, and one summary of their targets.

python -m benchmarks.run [NAME ...]
"""

import argparse
import json
import os
import subprocess
import sys
import time

from benchmarks._timing import RESULTS

NAMES = (
    "hvp_floor",
    "dense_hessian",
    "compile_time",
    "newton_cg_cost",
    "lbfgs",
    "lbfgs_direction",
    "least_squares",
    "many",
    "classifier",
    "vmc",
    "pinn",
    "autoencoder",
    "deep_nets",
    "dispatch",
    "dense_limit",
    "convergence",
    "spectra",
    "demo",
)
SCRIPTS = ("demo",)  # they import their neighbors by bare name, and run as files


def start(name):
    if name in SCRIPTS:
        return [sys.executable, os.path.join("benchmarks", f"{name}.py")]
    return [sys.executable, "-m", f"benchmarks.{name}"]


def summary(name, seconds, code):
    """Lines about one benchmark: how it ended, and its targets if it wrote any."""
    lines = [f"{name}: {seconds:.0f} s" + ("" if code == 0 else f", FAILED with exit code {code}")]
    path = RESULTS / f"{name}.json"
    targets = json.loads(path.read_text()).get("targets", []) if path.exists() else []
    for target in targets:
        verdict = "met    " if target["met"] else "NOT MET"
        lines.append(
            f"  {verdict} {target['value']:10.3g}  (<= {target['bound']:g})  {target['what']}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all if none")
    names = parser.parse_args().names or NAMES
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    lines, failed = [], False
    for name in names:
        print(f"\n== {name}", flush=True)
        begin = time.perf_counter()
        code = subprocess.run(start(name), check=False).returncode
        lines += summary(name, time.perf_counter() - begin, code)
        failed |= code != 0
    print("\n== summary", *lines, sep="\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
