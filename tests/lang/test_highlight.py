"""The Pygments lexer: it is found by its name, loses no character, and tells kinds of names apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename, get_lexer_for_mimetype
from pygments.token import Comment, Error, Keyword, Name, Number, String

from flowmetal.lang.highlight import FlowmetalLexer

LEXER = FlowmetalLexer(stripnl=False, ensurenl=False)


def test_pygments_finds_it() -> None:
    for found in (get_lexer_by_name("flowmetal"), get_lexer_for_filename("orders.flow"), get_lexer_for_mimetype("text/x-flowmetal")):
        assert isinstance(found, FlowmetalLexer)


@pytest.mark.parametrize(
    ("text", "piece", "token"),
    [
        ("(let [x 1] x)", "let", Keyword),
        ("(->> x f)", "->>", Keyword),
        ("(map f x)", "map", Name.Builtin),
        ("(str/join x)", "str/join", Name.Builtin),
        ("(mine x)", "mine", Name),
        ("(defflow nap [] 1)", "defflow", Keyword.Declaration),
        ("(defflow nap [] 1)", "nap", Name.Function),
        ("(defn ^:private f [])", "f", Name.Function),
        ("nil", "nil", Keyword.Constant),
        (":a/b", ":a/b", String.Symbol),
        ('"a \\" b"', '"a \\" b"', String.Double),
        ('#"re"', '#"re"', String.Regex),
        ("-12.5e3", "-12.5e3", Number),
        ("x ; no", "; no", Comment.Single),
    ],
)
def test_a_piece_has_its_colour(text: str, piece: str, token: object) -> None:
    assert (token, piece) in [(t, v) for t, v in LEXER.get_tokens(text)]


@given(st.text(alphabet="()[]{}'`~@^#\"\\;:,. \nab1%/-", max_size=60))
def test_no_character_is_lost_or_refused(text: str) -> None:
    found = list(LEXER.get_tokens(text))
    assert "".join(value for _, value in found) == text.replace("\r\n", "\n")
    assert all(token is not Error for token, _ in found)


def test_a_saved_notebook_is_coloured() -> None:
    """A notebook that says no more than its language's name."""
    nbconvert = pytest.importorskip("nbconvert")
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("(let [x 1] (map inc [x]))")], metadata={"language_info": {"name": "flowmetal"}})
    html, _ = nbconvert.HTMLExporter().from_notebook_node(book)
    assert '<span class="k">let</span>' in html and '<span class="nb">map</span>' in html
