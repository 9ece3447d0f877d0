"""One name for all executions of a statement, and repair of texts as servers record them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from .lex import Token, bind, split, tokens
from .told import reason

_LIST: Final = re.compile(r"\( \?(?: , \?)+ \)")
_ROWS: Final = re.compile(r"(values \( \? \))(?: , \( \? \))+")
#: Long lists of values, as applications paste them: read at once instead of value by value.
_VALUE: Final = r"(?:-?\d[\d.]*|'[^'\\]*'|%s|\?|\$\d+|:\w+|%\(\w+\)s)"
_LONG_LIST: Final = re.compile(
    "|".join(  # numbers are read fastest by themselves
        rf"\(\s*(?:{value}\s*,\s*){{31,}}{value}\s*\)" for value in (r"-?\d+", r"'[^'\\]*'", _VALUE)
    )
)
_ROW: Final = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)"
_LONG_ROWS: Final = re.compile(rf"(\bvalues\s*)(?:{_ROW}\s*,\s*){{15,}}(?={_ROW})", re.IGNORECASE)
#: How long lists and rows begin.
_OPENED: Final = re.compile(
    rf"\(\s*(?:{_VALUE}\s*,\s*){{31}}|\bvalues\s*(?:{_ROW}\s*,\s*){{15}}", re.IGNORECASE
)
_BEYOND: Final = 8_000  # so much of a list is looked for behind the end of what is named
_OPEN: Final = re.compile(r"(?:- )?(?:, )?(?:\? , )*(?=\?)")  # a list that was cut, from its end
_LIMIT: Final = re.compile(r"(\blimit\s+(?:\?|:p\d+|\d+)\s*),\s*\.\.\.\s*$", re.IGNORECASE)
_SHOWN: Final = 40
_DEEP: Final = "it is nested more deeply than can be read"
#: A run of operator characters, or what may hold some that are none.
_OPERATOR: Final = re.compile(
    r"""'(?:[^']|'')*'|"[^"]*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|(?P<operator>[-+*/<>=~!@#%^&|`?]{2,})""",
    re.DOTALL,
)
_KNOWN_OPERATORS: Final = frozenset(
    [
        "<=",
        ">=",
        "<>",
        "!=",
        "||",
        "->",
        "->>",
        "#>",
        "#>>",
        "#-",
        "@>",
        "<@",
        "&&",
        "@@",
        "@?",
        "?|",
        "?&",
        "~*",
        "!~",
        "!~*",
        "~~",
        "~~*",
        "!~~",
        "!~~*",
        "=>",
        "<<",
        ">>",
        "&<",
        "&>",
        "-|-",
        "<->",
        "^@",
        "|/",
    ]
)
_DOT: Final = [Token("op", ".")]
_READ: Final = 1_000_000  # characters of a text that are looked at in the thread that sends it
_SHORT: Final = 4_000  # longer texts are not kept
_VALUES_FOLLOW: Final = frozenset(
    {"=", "==", "<>", "!=", "<", ">", "<=", ">=", "||", "like", "glob", "match", "regexp", "is", "between"}
    | {"then", "else", "escape", "limit", "offset"}
)
_IGNORED: Final = frozenset(
    {"set", "use", "begin", "commit", "rollback", "start", "savepoint", "release", "reset", "show"}
)
_TYPED: Final = frozenset({"date", "timestamp", "timestamptz", "time", "interval"})
_READABLE: Final = frozenset(
    {"select", "with", "insert", "update", "delete", "replace", "merge", "create", "("}
)
_CLAUSES: Final = frozenset(
    [
        "and",
        "or",
        "where",
        "group",
        "order",
        "having",
        "limit",
        "offset",
        "join",
        "left",
        "right",
        "inner",
        "cross",
        "full",
        "on",
        "union",
        "set",
        "from",
    ]
)


class Fingerprint(NamedTuple):
    """A statement without its literals.

    Attributes:
        id: 16 hexadecimal digits, the same on every machine.
        text: The normalised text: values are ``?``, names lower case, lists of any length ``(?)``.
    """

    id: str
    text: str


def fingerprint(sql: str, dialect: str = "sqlite") -> Fingerprint:
    """Return what all executions of ``sql`` with other values have in common.

    >>> a = fingerprint("SELECT * FROM t WHERE a IN (1, 2) AND b = 'x'")
    >>> a.text
    'select * from t where a in ( ? ) and b = ?'
    >>> a == fingerprint("select *  from T where a in (?,?,?) and b = :name")
    True
    """
    return _remembered(sql, dialect) if len(sql) <= _SHORT else _named(shortened(sql), dialect)


def shortened(sql: str) -> str:
    """Return a text of the same fingerprint with its long lists of values, and rows of them, cut short.

    >>> shortened(f"SELECT a FROM t WHERE b IN ({', '.join('7' * 40)}) AND c = 1")
    'SELECT a FROM t WHERE b IN (1, 1) AND c = 1'
    """
    return _LONG_LIST.sub("(1, 1)", _LONG_ROWS.sub(r"\1", sql))


def bounded(sql: str, dialect: str, most: int) -> Fingerprint:
    """Return the fingerprint of a text, or of its first ``most`` characters where it is longer.

    Long lists are cut short before. What is behind is no part of the name: a list that is cut has one name
    however many values it has.
    """
    text = sql if len(sql) <= most else _head(sql, most)
    if len(text) <= most:
        return fingerprint(text, dialect)
    head = tokens(text[:most], dialect)
    name = named(head[:-1], dialect)  # the last may be cut
    cut = _OPEN.match(name.text[::-1])
    body = name.text[: len(name.text) - cut.end()] if cut is not None else name.text
    return Fingerprint(_digest(body), body)


def _head(sql: str, most: int) -> str:
    """Return a text's beginning with its long lists cut short; only what is needed of it is looked at."""
    out: list[str] = []
    at, left = 0, most + 1
    while at < len(sql) and left > 0:
        last = min(len(sql), at + left + _BEYOND)
        opened = _OPENED.search(sql, at, last)
        if opened is None:
            out.append(sql[at : last if last < len(sql) else None])
            break
        begin = opened.start()
        rows = _LONG_ROWS.match(sql, begin, _READ)
        found = rows or _LONG_LIST.match(sql, begin, _READ)
        end = opened.end() if found is None else found.end()
        short = sql[begin:end] if found is None else "(1, 1)" if rows is None else rows[1]
        out += (sql[at:begin], short)
        left -= begin - at + len(short)
        at = end
    return "".join(out)


def _named(sql: str, dialect: str) -> Fingerprint:
    return named(tokens(sql, dialect), dialect)


def named(given: Iterable[Token], dialect: str) -> Fingerprint:
    """Return the fingerprint of a statement that was cut into tokens before."""
    out: list[str] = []
    is_list = False  # inside of IN (...) and VALUES (...), with values only so far
    parts = [t for t in given if t.kind not in ("space", "comment")]
    for number, (kind, text) in enumerate(parts):
        if kind == "word":
            out.append(text.lower())
            is_list = False
            continue
        if (
            kind == "ident"
            and dialect == "sqlite"
            and parts[number + 1 : number + 2] != _DOT
            and _is_text(text, out, is_list)
        ):
            out.append("?")
        elif kind in ("string", "number", "param"):
            if out[-1:] == ["-"] and (len(out) < 2 or out[-2] in ("(", "=", ",", "<", ">", "<=", ">=", "<>")):
                out.pop()  # the sign belongs to the value
            out.append("?")
        elif kind == "ident":
            out.append(text if _needs_quotes(text) else text[1:-1].lower())
        elif text == "...":
            out.append("?")
        else:
            out.append(text.lower())
        if out[-1] == "(":
            is_list = len(out) > 1 and out[-2] in ("in", "values", ",")
        elif out[-1] not in ("?", ",", "-"):
            is_list = False
    while out and out[-1] == ";":
        out.pop()
    body = re.sub(r"\( \. \. \. \)", "( ? )", " ".join(out))
    body = _ROWS.sub(r"\1", _LIST.sub("( ? )", body)).replace(" . ", ".")
    return Fingerprint(_digest(body), body)


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()


_remembered: Final = lru_cache(maxsize=20_000)(_named)


def _is_text(text: str, before: list[str], is_list: bool) -> bool:
    """Tell whether SQLite takes "..." for a text, as far as its place tells: where a value is expected.

    A name that is compared with another has its table before it, or a dot behind it that parts them.
    """
    if text[0] != '"' or not before:
        return False
    if before[-1] in _VALUES_FOLLOW:
        return True
    return is_list and before[-1] in ("(", ",")


def _needs_quotes(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*", text[1:-1]) is None


class Parsed(NamedTuple):
    """A statement as a tree.

    Attributes:
        tree: The parsed statement, or ``None`` when even repair did not help.
        sql: Its text after repair, with ``:pN`` parameters.
        is_cut: The server had cut the text; what is missing was not analysed.
        unread: Where the parser met what it does not know; the tree ends before it.
        error: Why it does not parse, in one line.
    """

    tree: Any
    sql: str
    is_cut: bool = False
    error: str | None = None
    unread: str | None = None


def statements(sql: str, dialect: str = "sqlite") -> Iterator[str]:
    """Yield the statements of a text that a server logged as one, without session settings."""
    for part in split(sql, dialect):
        if not is_setting(part):
            yield "".join(t.text for t in part).strip()


def is_setting(part: Iterable[Token]) -> bool:
    """Tell whether a statement sets something of its session, or begins or ends a transaction."""
    return next((t.text.lower() for t in part if t.kind not in ("space", "comment")), "") in _IGNORED


@lru_cache(maxsize=5_000)
def parse(sql: str, dialect: str = "sqlite") -> Parsed:
    """Parse one statement, repairing what servers do to texts they record.

    ``$1,$2`` (which parsers take for a dollar quote), ``?1``, ``date $1``, digests with ``...`` and
    texts that were cut in the middle all give a tree; a cut text loses its last clause and says so.

    >>> parse("SELECT a FROM t WHERE substr(b,$1,$2) IN ($3)", "postgres").tree is not None
    True
    >>> parse("SELECT a FROM t WHERE b = 1 AND c = 'unfinis").is_cut
    True
    """
    text = bind(_repair(sql, dialect), None, dialect).sql
    text = _operators(text) if dialect == "postgres" else text
    first = next((t.text.lower() for t in tokens(text, dialect) if t.kind in ("word", "op")), "")
    if first not in _READABLE:
        return Parsed(None, text, False, _no_query(text, dialect))
    tree, error, rest = _try(text, dialect)
    if tree is not None:
        return Parsed(tree, text)
    if error == _DEEP:
        return Parsed(None, text, False, error)  # it is whole: nothing of it was cut
    for values in (2, 3) if "..." in sql else ():  # a digest says "some more values", not how many
        fuller = bind(_repair(sql, dialect, values), None, dialect).sql
        tree, _, _ = _try(fuller, dialect)
        if tree is not None:
            return Parsed(tree, fuller)
    for shorter in _cuts(text, dialect):
        tree, _, _ = _try(shorter, dialect)
        if tree is not None:
            return Parsed(tree, shorter, not rest, unread=rest or None)
    return Parsed(None, text, False, error)


def _try(text: str, dialect: str) -> tuple[Any, str | None, str]:
    """Return the tree, or an error and the text where it is: empty at the end of the statement."""
    try:
        tree = sqlglot.parse_one(text, read=dialect)
    except RecursionError:
        return None, _DEEP, ""
    except (SqlglotError, ValueError) as error:
        return None, reason(error, text, dialect)[:200], _rest(error, dialect)
    if isinstance(tree, exp.Command):
        return None, _no_query(text, dialect), ""
    return tree, None, ""


def _no_query(text: str, dialect: str) -> str:
    return f"not a query or change of data: {fingerprint(text, dialect).text[:_SHOWN]}"


def _rest(error: Exception, dialect: str) -> str:
    """Return what a parser met, without values, if more follows it; a text that was cut fails at its end."""
    where = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    after = str(where.get("end_context") or "").strip()
    if not after.strip(" )"):
        return ""
    return fingerprint(f"{where.get('highlight') or ''} {after}", dialect).text[:_SHOWN]


def _operators(text: str) -> str:
    """Write PostgreSQL's operators that the parser does not know in the form that takes any."""
    return _OPERATOR.sub(_spelled, text) if _OPERATOR.search(text) else text


def _spelled(found: re.Match[str]) -> str:
    name = found["operator"]
    if name is None:
        return found.group()  # a text, a name or a comment
    while name[-1:] in ("+", "-") and len(name) > 1 and not set(name) & set("~!@#%^&|`?"):
        name = name[:-1]  # a sign
    rest = found["operator"][len(name) :]
    return found.group() if len(name) < 2 or name in _KNOWN_OPERATORS else f" OPERATOR({name}) {rest}"


def _repair(sql: str, dialect: str, values: int = 1) -> str:
    """Undo what servers do to texts; ``values`` stand for each ``...`` inside of brackets."""
    sql = re.sub(_LIMIT, r"\1, ?", sql)
    sql = re.sub(r",\s*\.\.\.(?=\s*[,)])", ", ?" * values, sql)
    sql = re.sub(r"/\*\s*,\s*\.\.\.\s*\*/", "", sql)
    # To an index both are an insert (an update), and the parser knows only one of them.
    sql = re.sub(r"^(\s*)replace(\s+into\b)", r"\1INSERT\2", sql, flags=re.IGNORECASE)
    sql = re.sub(r"^(\s*update\s+)or\s+\w+\s+", r"\1", sql, flags=re.IGNORECASE)
    sql = re.sub(r"\(\s*\.\.\.\s*\)", "(?)", sql)
    if (end := sql.rstrip()).endswith("..."):
        sql = end[:-3].rstrip()
    out: list[Token] = []
    for token in tokens(sql, dialect):
        if token.kind == "param" and dialect == "postgres":
            word = next((i for i in range(len(out) - 1, -1, -1) if out[i].kind != "space"), None)
            if word is not None and out[word].text.lower() in _TYPED and out[word].kind == "word":
                cast = f"CAST({token.text} AS {out[word].text})"
                del out[word:]
                out.append(Token("op", cast))
                continue
        out.append(token)
    return "".join(t.text for t in out)


def _cuts(text: str, dialect: str) -> Iterator[str]:
    """Yield ever shorter heads of ``text`` that end before a clause, with brackets closed."""
    parts = tokens(text, dialect)
    places = [i for i, t in enumerate(parts) if t.kind == "word" and t.text.lower() in _CLAUSES]
    for place in reversed(places[-60:]):
        head = parts[:place]
        while head and (head[-1].kind == "space" or head[-1].text.lower() in _CLAUSES):
            head = head[:-1]
        depth = sum((t.text == "(") - (t.text == ")") for t in head if t.kind == "op")
        if head and depth >= 0:
            yield "".join(t.text for t in head) + ")" * depth


def is_read(sql: str) -> bool:
    """Tell whether ``sql`` only reads (``SELECT`` or ``WITH ... SELECT``).

    >>> is_read("/* x */ with a as (select 1) select * from a"), is_read("with a as (select 1) delete from t")
    (True, False)
    """
    words = [t.text.lower() for t in tokens(sql) if t.kind == "word"]
    if not words:
        return False
    if words[0] == "with":
        return not any(w in ("insert", "update", "delete", "merge") for w in words)
    return words[0] == "select" and "into" not in words[:60]
