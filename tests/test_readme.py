"""The README's Python runs as printed, from top to bottom, in one namespace.

A block with >>> is a doctest; any other is executed. A block that should not run stands after an
HTML comment that says why: <!-- not run: needs a GPU -->
"""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n+)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_blocks(text: str) -> int:
    """Execute the Python blocks of a Markdown text; how many ran."""
    names, count = {"__name__": "readme"}, 0
    for match in BLOCK.finditer(text):
        excuse, block = match.groups()
        if excuse:
            continue
        line = text.count("\n", 0, match.start(2))
        count += 1
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, "README.md", None, line)
            doctest.DebugRunner(optionflags=FLAGS).run(test, clear_globs=False)
            names = test.globs
        else:
            exec(compile("\n" * line + block, "README.md", "exec"), names)
    return count


@pytest.mark.standard_promotion("a reader's session is not in strict mode")
def test_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = README.read_text()
    monkeypatch.chdir(tmp_path)  # what an example saves does not land in the tree
    assert run_blocks(text) >= 1


def test_blocks_share_names_and_fail_loudly():
    text = "```python\nx = 1\n```\n\n```python\n>>> x + 1\n2\n```\n"
    assert run_blocks(text) == 2
    with pytest.raises(doctest.DocTestFailure):
        run_blocks(text.replace("\n2\n", "\n3\n"))
    with pytest.raises(ZeroDivisionError):
        run_blocks("```python\n1 / 0\n```\n")
    assert run_blocks("<!-- not run: it divides by zero -->\n```python\n1 / 0\n```\n") == 0
