"""How answers print: by name, in a few lines, and what they say where nothing is known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hesskit.core import answer


class Word(answer.Kind):
    YES = 1


@answer.printed("size", lambda found: [f"size {float(found.size):g}", "<of it>"])
class Size(NamedTuple):
    size: jax.Array


def test_a_kind_prints_its_name():
    assert f"{Word.YES} {Word.YES:>5}" == "YES   YES"
    assert str(Word.YES) == "YES"
    assert answer.word(Word, jnp.int32(1)) is Word.YES


def test_codes_stay_codes_where_they_are_many_or_traced():
    codes = jnp.array([1, 1])
    assert answer.word(Word, codes) is codes
    assert jax.jit(lambda c: answer.word(Word, c))(1) == 1


def test_an_answer_prints_its_lines_and_escapes_them_in_a_notebook():
    found = Size(jnp.ones(()))
    assert str(found) == repr(found) == "size 1\n<of it>"
    assert found._repr_html_() == "<pre>size 1\n&lt;of it&gt;</pre>"
    assert repr(Size(jnp.ones((2, 3)))) == "Size: a batch of shape (2, 3)"
    seen = []
    jax.jit(lambda x: seen.append(repr(Size(x))))(1.0)
    assert seen == ["Size: not known inside jit"]
    shapes = jax.eval_shape(Size, jnp.ones(()))
    assert repr(shapes) == "Size: not known inside jit"
    assert isinstance(answer.word(Word, shapes.size), jax.ShapeDtypeStruct)


def test_a_row_is_short():
    assert answer.row(jnp.array([1.0, 2.5])) == "1, 2.5"
    assert answer.row(jnp.arange(6.0)) == "0, 1, 2, 3, 4, 5"
    assert answer.row(jnp.arange(7.0)) == "0, 1, 2, ..., 4, 5, 6"
