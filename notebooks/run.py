"""Executes the notebooks, each from top to bottom in a fresh kernel, and prints the seconds.

    python notebooks/run.py [--keep] [NUMBER ...]      all of them, or those of these numbers

`--keep` writes what they print and draw into the files, pictures with 256 colors. `--workers` of
them run at a time.
"""

import argparse
import base64
import io
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).resolve().parent
SECONDS = 300
"""Of a cell: many times what the slowest takes, so that none hangs."""


def small(picture: str) -> str:
    """A PNG in base64 with a palette, its lightest color white."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colors = image.getpalette() or []
    entries = [colors[i : i + 3] for i in range(0, len(colors), 3)]
    lightest = max(range(len(entries)), key=lambda i: sum(entries[i]))
    entries[lightest] = [255, 255, 255]
    image.putpalette([part for entry in entries for part in entry])
    made = io.BytesIO()
    image.save(made, "PNG", optimize=True)
    return base64.b64encode(made.getvalue()).decode()


def clean(notebook: nbformat.NotebookNode) -> None:
    """Leaves what a reader sees: no times, no metadata, small pictures."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": small(output.data["image/png"])}


def run(path: Path, *, keep: bool) -> bool:
    """Executes one; whether it ran through."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(FOLDER)}}
    start, error = time.perf_counter(), ""
    try:
        NotebookClient(notebook, timeout=SECONDS, resources=where, coalesce_streams=True).execute()
    except CellExecutionError as failed:
        error = str(failed)
    word = "FAILED after " if error else ""
    print(f"{path.name}: {word}{time.perf_counter() - start:.0f} s\n{error}".rstrip(), flush=True)
    if keep and not error:
        clean(notebook)
        nbformat.write(notebook, path)
    return not error


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks.")
    parser.add_argument("--keep", action="store_true", help="write the outputs into the files")
    parser.add_argument("--workers", type=int, default=2, help="how many run at a time")
    parser.add_argument("numbers", nargs="*", type=int, help="which; all if none is named")
    given = parser.parse_args()
    os.environ.pop("MPLBACKEND", None)  # the kernel chooses the one that shows pictures
    # Compiled programs are kept between runs, as those of the tests are.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(FOLDER.parent / ".cache" / "jax"))
    paths = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    chosen = [path for path in paths if not given.numbers or int(path.name[:2]) in given.numbers]
    with ThreadPoolExecutor(given.workers) as pool:
        good = list(pool.map(lambda path: run(path, keep=given.keep), chosen))
    sys.exit(0 if good and all(good) else 1)


if __name__ == "__main__":
    main()
