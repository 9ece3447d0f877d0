"""Cut SQL into tokens: enough to normalise, split, bind and repair texts that no parser would take.

A lexer never fails on a cut or foreign text, and keeps every byte, so ``"".join`` gives the text back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

Kind = Literal["space", "comment", "string", "ident", "number", "param", "word", "op"]


class Token(NamedTuple):
    """One piece of a statement."""

    kind: Kind
    text: str


# No alternative of one quantifier may begin like another, and what opens is closed by the end of the text:
# then nothing is read twice, and time is in proportion to the length.
_COMMON: Final = r"""
  (?P<space>\s+)
 |(?P<comment>--[^\n]*|/\*{comment})
 |(?P<string>{strings})
 |(?P<ident>{ident})
 |(?P<number>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w$]))
 |(?P<param>%\([^()%]{{1,200}}\)s|%s|\$\d+|(?<!:):[A-Za-z_]\w*{at})
 |(?P<word>[\w\u0080-\uffff][\w$\u0080-\uffff]*)
 |(?P<op>::|<=>|<>|!=|<=|>=|\|\||->>|->|.)
"""
_CLOSED: Final = r".*?(?:\*/|\Z)"
_PLAIN: Final = r"'(?:[^']|'')*(?:'|\Z)"
_ESCAPED: Final = r"'(?:[^'\\]|''|\\(?:.|\Z))*(?:'|\Z)"
_DOUBLE: Final = r'"(?:[^"]|"")*(?:"|\Z)'
_BACKTICK: Final = r"`(?:[^`]|``)*(?:`|\Z)"
_DOLLAR: Final = r"\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)"


def _compile(dialect: str, *, named: bool = True) -> re.Pattern[str]:
    if dialect == "mysql":
        # Backslashes escape, "..." is text unless ANSI_QUOTES, back-ticks quote names, # comments;
        # _utf8mb4'...' and N'...' are one literal.
        double = r'"(?:[^"\\]|""|\\(?:.|\Z))*(?:"|\Z)'
        before = r"(?:[bBxXnN](?=')|_[A-Za-z]\w*[ ]?(?=['\"]))?"
        strings, ident, at = rf"{before}(?:{_ESCAPED}|{double})", _BACKTICK, r"|\?\d*"
        comment = _CLOSED + r"|\#[^\n]*"
    elif dialect == "postgres":
        # E'...' alone has backslashes; comments are nested, so their end is looked for by hand.
        strings = rf"[eE]{_ESCAPED}|(?:[bBxXnN]|[uU]&)?{_PLAIN}|{_DOLLAR}"
        ident, at, comment = rf"(?:[uU]&)?{_DOUBLE}", "", ""
    else:
        strings, ident = rf"[xX]?{_PLAIN}", rf"{_DOUBLE}|{_BACKTICK}|\[[^\]]*(?:\]|\Z)"
        at, comment = r"|\?\d*|@[A-Za-z_]\w*", _CLOSED
    if not named and not comment:
        comment = _CLOSED  # nested ones are not met here
    pattern = _COMMON.format(comment=comment, strings=strings, ident=ident, at=at)
    if not named:
        pattern = re.sub(r"\(\?P<(?!tag)\w+>", "(?:", pattern)
        pattern = f"({pattern})" if "P<tag>" in pattern else pattern
    return re.compile(pattern, re.VERBOSE | re.DOTALL)


_LEXERS: Final = {name: _compile(name) for name in ("sqlite", "postgres", "mysql")}
#: The same without names, to cut a text at once; PostgreSQL's find the tag of a dollar quote as well.
_FINDERS: Final = {name: _compile(name, named=False) for name in _LEXERS}
#: A comment within a comment, or what looks like one.
_NESTED: Final = re.compile(r"/\*(?:[^*/]|\*(?!/)|/(?!\*))*/\*")
_SHORT: Final = 4_000  # longer texts are not kept
_COMMENT_ENDS: Final = re.compile(r"/\*|\*/")


def tokens(sql: str, dialect: str = "sqlite") -> list[Token]:
    """Cut ``sql`` into tokens; their texts joined are ``sql`` again.

    >>> [t.text for t in tokens("a=$1", "postgres")]
    ['a', '=', '$1']
    >>> [t.text for t in tokens("/* a /* b */ c */1", "postgres")]
    ['/* a /* b */ c */', '1']
    """
    return list(_remembered(sql, dialect)) if len(sql) <= _SHORT else list(_tokens(sql, dialect))


def _tokens(sql: str, dialect: str) -> tuple[Token, ...]:
    if dialect == "postgres" and _NESTED.search(sql):
        return _one_by_one(sql, dialect)
    found = _FINDERS[dialect].findall(sql)
    texts = found if dialect != "postgres" else [text for text, _ in found]
    return tuple(map(_Known(dialect).__getitem__, texts))


class _Known(dict[str, Token]):
    """The token of each text: what kind a text is does not depend on what is around it."""

    def __init__(self, dialect: str) -> None:
        self._match = _LEXERS[dialect].fullmatch

    def __missing__(self, text: str) -> Token:
        kind: Any = "comment" if text.startswith("/*") else None
        if kind is None:
            found = self._match(text)
            kind = "op" if found is None else found.lastgroup
        token = self[text] = Token("string" if kind == "tag" else kind, text)
        return token


def _one_by_one(sql: str, dialect: str) -> tuple[Token, ...]:
    out: list[Token] = []
    match, at = _LEXERS[dialect].match, 0
    while (found := match(sql, at)) is not None:
        kind: Any = found.lastgroup
        end = found.end()
        if kind == "comment" and dialect == "postgres" and sql[at] == "/":
            end = _nested(sql, end)
        out.append(Token("string" if kind == "tag" else kind, sql[at:end]))
        at = end
    return tuple(out)


#: A statement that is read is named, bound, repaired and parsed: its text is cut once for all of it.
_remembered: Final = lru_cache(maxsize=32)(_tokens)


def _nested(sql: str, at: int) -> int:
    """Return where a comment ends that has others inside."""
    depth = 1
    for mark in _COMMENT_ENDS.finditer(sql, at):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def split(sql: str, dialect: str = "sqlite") -> list[list[Token]]:
    """Cut a script at its semicolons; comments stay with the statement that follows them.

    >>> ["".join(t.text for t in s).strip() for s in split("SELECT ';'; SELECT 2;")]
    ["SELECT ';'", 'SELECT 2']
    """
    return _cut(tokens(sql, dialect))


def _cut(parts: Iterable[Token]) -> list[list[Token]]:
    out: list[list[Token]] = [[]]
    for token in parts:
        if token == ("op", ";"):
            out.append([])
        else:
            out[-1].append(token)
    return [s for s in out if any(t.kind not in ("space", "comment") for t in s)]


def split_lines(chunks: Iterable[str], dialect: str = "sqlite") -> Iterator[list[Token]]:
    """Cut a script that comes in pieces, as :func:`split` does; no more than a statement is kept.

    >>> ["".join(t.text for t in s).strip() for s in split_lines(["SELECT 'a", ";b'; SELECT", " 2"])]
    ["SELECT 'a;b'", 'SELECT 2']
    """
    kept: list[str] = []
    length, wanted = 0, 0
    for chunk in chunks:
        kept.append(chunk)
        length += len(chunk)
        if length < wanted:
            continue  # of a long statement: what is not complete is read again only when it has doubled
        text = "".join(kept)
        parts = tokens(text, dialect)
        ends = [n for n, t in enumerate(parts[:-1]) if t == ("op", ";")]  # the last may go on
        rest = text
        if ends:
            yield from _cut(parts[: ends[-1]])
            rest = "".join(t.text for t in parts[ends[-1] + 1 :])
        kept, length, wanted = [rest], len(rest), 2 * len(rest)
    yield from split("".join(kept), dialect)


def without_values(sql: str, dialect: str = "sqlite") -> str:
    """Return a statement as it is, with ``?`` for each of its values: what may be shown to anybody.

    >>> without_values("SELECT a FROM t1 WHERE b = 'Ann' AND c > -3")
    'SELECT a FROM t1 WHERE b = ? AND c > -?'
    """
    return "".join("?" if t.kind in ("string", "number") else t.text for t in tokens(sql, dialect))


#: What MySQL and MariaDB run although it stands in a comment: ``/*!40001 SQL_NO_CACHE */``.
_RUN: Final = re.compile(r"/\*(?:M!\d*|!(\d*))(.*)\*/", re.DOTALL)
_NEWEST: Final = 50_700  # from here on one of them runs it and the other does not


def _opened(token: Token) -> str:
    found = _RUN.fullmatch(token.text) if token.kind == "comment" else None
    return token.text if found is None or int(found[1] or 0) >= _NEWEST else f" {found[2]} "


class Bound(NamedTuple):
    """A statement whose parameters are all named ``:p1``, ``:p2``, ... in order of appearance.

    Attributes:
        sql: The text.
        values: One value per parameter, or ``None`` where no values were given.
        parameters: How many parameters there are.
    """

    sql: str
    values: tuple[Any, ...] | None
    parameters: int


def bind(sql: str, params: Sequence[Any] | Mapping[str, Any] | None, dialect: str = "sqlite") -> Bound:
    """Give all placeholders of any driver's style one style, and put the values in that order.

    >>> bind("SELECT a FROM t WHERE b = %(b)s AND c = %(b)s", {"b": 3}, "postgres")
    Bound(sql='SELECT a FROM t WHERE b = :p1 AND c = :p2', values=(3, 3), parameters=2)
    >>> bind("SELECT a FROM t /* x */ WHERE b = 1 /*! AND c = ? */", [3], "mysql").sql
    'SELECT a FROM t   WHERE b = 1   AND c = :p1'
    """
    if dialect == "mysql" and ("/*!" in sql or "/*M!" in sql):
        sql = "".join(_opened(token) for token in tokens(sql, dialect))
    parts: list[str] = []
    values: list[Any] | None = [] if params else None
    count = 0
    doubled = bool(params) and any(t.kind == "param" and t.text[0] == "%" for t in tokens(sql, dialect))
    for kind, text in tokens(sql, dialect):
        if kind == "param":
            count += 1
            parts.append(f":p{count}")
            if values is not None and params is not None:
                try:
                    values.append(_value(text, params, len(values)))
                except (LookupError, TypeError):
                    values = None
        elif kind == "comment":
            parts.append(" ")
        elif doubled and "%%" in text:
            parts.append(text.replace("%%", "%"))
        else:
            parts.append(text)
    body = "".join(parts).strip().rstrip(";").strip()
    if doubled:
        body = body.replace("%%", "%")  # "%" is an operator of its own: two tokens
    return Bound(body, None if values is None and count else tuple(values or ()), count)


def _value(text: str, params: Sequence[Any] | Mapping[str, Any], position: int) -> Any:
    if isinstance(params, Mapping):
        name = text[2:-2] if text.startswith("%(") else text[1:]
        return params[name]
    if text[0] in "?$" and len(text) > 1:
        return params[int(text[1:]) - 1]
    return params[position]


def render(sql: str, values: Sequence[Any] | None, style: str, dialect: str) -> tuple[str, Any]:
    """Turn a :class:`Bound` text into what a driver takes.

    Args:
        sql: Text with ``:pN`` parameters.
        values: One value per parameter.
        style: ``"qmark"`` or ``"format"`` (then ``%`` is doubled when there are parameters).
        dialect: For the lexer.
    """
    if not values:
        return sql, ()
    parts, out = [], []
    for kind, text in tokens(sql, dialect):
        if kind == "param":
            out.append(values[int(text[2:]) - 1])
            parts.append("?" if style == "qmark" else "%s")
        else:
            parts.append(text.replace("%", "%%") if style == "format" else text)
    return "".join(parts), tuple(out)
