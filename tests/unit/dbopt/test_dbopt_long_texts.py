"""Long texts: a name in bounded time, and the same name."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf.dbopt.statements import lex
from eventperf.dbopt.statements.fingerprint import bounded, fingerprint, named, shortened
from eventperf.dbopt.statements.lex import tokens


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql"])
def test_a_long_list_is_read_at_once_and_named_as_before(dialect: str) -> None:
    draw = random.Random(7)
    for _ in range(60):
        values = [
            draw.choice(["1", "-2", "'a'", "''", "$1", "' ('", "1.5"]) for _ in range(draw.randint(20, 90))
        ]
        for text in (
            f"select a from t where b in ({','.join(values)}) and c = 1",
            f"insert into t values {', '.join(f'({v}, 1)' for v in values)}",
            f"select {', '.join(values)}",
            f"select '({', '.join('1' * 40)})' from t",
        ):
            assert named(tokens(shortened(text), dialect), dialect) == named(tokens(text, dialect), dialect)


def test_of_a_long_text_no_more_than_its_head_is_named() -> None:
    draw = random.Random(7)

    def text(count: int) -> str:
        values = ", ".join(str(draw.randrange(10**6)) for _ in range(count))
        return f"select a from t where b in (x, {values}, y)"

    names = {bounded(text(5_000 + n), "postgres", 4_096) for n in range(5)}
    assert len(names) == 1
    (name,) = names
    assert len(name.text) < 4_096
    whole = f"select a from t where b in ({', '.join('1' * 9_000)}) and c = 1"
    assert bounded(whole, "postgres", 4_096) == fingerprint(whole, "postgres"), "the end of a list is no end"


def test_texts_in_double_quotes_are_told_from_names_by_where_they_stand() -> None:
    many = ", ".join(['"x"'] * 50)
    assert fingerprint(f"select a from t where b in ({many})").text == "select a from t where b in ( ? )"
    assert fingerprint('select a from t where b in (1, c, "d")').text.endswith("in ( ? , c , d )")
    assert fingerprint('insert into t values (1, "a"), ("b", -2)').text == "insert into t values ( ? )"


_PIECES = [
    "'",
    '"',
    "`",
    "[",
    "]",
    "a",
    "B9",
    "1",
    "2.5",
    ".5",
    "1e5",
    "0x1F",
    "1abc",
    "$1",
    "$a$",
    "$$",
    ":p1",
    "::",
    "%s",
    "%(a)s",
    "%",
    "?",
    "?1",
    "@v",
    "/*",
    "*/",
    "e'",
    "x'",
    "N'",
    "U&'",
    "\\",
    "(",
    ")",
    ";",
    "->>",
    "<=>",
    "#c",
    "é",
    "٣",
]


@given(
    st.lists(st.sampled_from([*_PIECES, " ", "\n", "--x\n", "_utf8 '", "\x00"]), max_size=14),
    st.sampled_from(["sqlite", "postgres", "mysql"]),
)
def test_a_text_cut_at_once_has_the_tokens_of_one_cut_piece_by_piece(pieces: list[str], dialect: str) -> None:
    text = "".join(pieces)
    assert tuple(tokens(text, dialect)) == lex._one_by_one(text, dialect)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql"])
def test_lists_and_rows_in_the_head_of_a_long_text_are_cut_short_as_in_the_whole(dialect: str) -> None:
    rows = ", ".join(f"({n}, 'x{n}')" for n in range(900))
    values = ", ".join(map(str, range(3_000)))
    text = f"with v as (values {rows}) select a from t where b in ({values}) and c in ({values}) and d = 5"
    assert bounded(text, dialect, 4_096) == fingerprint(text, dialect)
    padded = f"{text} and e in ({', '.join(['f(1)'] * 3_000)})"
    assert bounded(padded, dialect, 4_096).text.startswith(fingerprint(text, dialect).text)
