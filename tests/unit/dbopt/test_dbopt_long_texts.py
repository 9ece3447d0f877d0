"""Long texts: a name in bounded time, and the same name."""

from __future__ import annotations

import random

import pytest

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
