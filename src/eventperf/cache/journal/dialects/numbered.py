"""Positions in a table whose rows are numbered: how far, and which numbers before that are still missing.

A number is given when a row is written, not when it is committed: one that is missing belongs to a
transaction that is still under way, or was rolled back. A position remembers it until the server knows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventperf._core.texts import whole
from eventperf.cache.journal.layout import CHANGES, Batch, LostPlace

PAGE: Final = 5_000
MOST_GAPS: Final = 2_000
"""Beyond it neighbours are joined: the rows between them are told again until the server knows."""
_AT_ONCE: Final = 100
"""Ranges that are read by one statement."""
_BEFORE: Final = 1_000
"""How many numbers before the first row that is there may belong to transactions under way."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A position.

    Attributes:
        server: Whose numbers they are.
        last: The highest number that was read; 0 before the first.
        gaps: Ranges of numbers below it that were missing, in order.

    >>> Place.of("7 120:110-112,119-119")
    Place(server='7', last=120, gaps=((110, 112), (119, 119)))
    >>> str(Place("7", 120, ((110, 112),)))
    '7 120:110-112'
    """

    server: str
    last: int
    gaps: tuple[Range, ...] = ()

    @classmethod
    def of(cls, text: str) -> Place:
        """Read what ``str`` wrote.

        Raises:
            LostPlace: It is something else: everybody with the table of readers may write there.
        """
        server, _, rest = text.rpartition(" ")
        last, _, gaps = rest.partition(":")
        pairs = [gap.partition("-") for gap in gaps.split(",") if gap]
        return cls(server, number(last), tuple((number(low), number(high)) for low, _, high in pairs))

    def __str__(self) -> str:
        return f"{self.server} {self.last}:{','.join(f'{low}-{high}' for low, high in self.gaps)}"

    @property
    def floor(self) -> int:
        """The number below which nothing is of use any more; the last row stays, it shows that it is ours."""
        return self.gaps[0][0] if self.gaps else self.last


def number(text: str) -> int:
    """Return a number of a position.

    Raises:
        LostPlace: It is none.
    """
    if (found := whole(text)) is None:
        raise LostPlace("what was kept of it is damaged")
    return found


def holes(low: int, high: int, seen: Sequence[int]) -> list[Range]:
    """Return the ranges from ``low`` to ``high`` of which no number was seen; ``seen`` is in order.

    >>> holes(1, 9, [2, 3, 7])
    [(1, 1), (4, 6), (8, 9)]
    """
    out = []
    for number in [*seen, high + 1]:
        if number > low:
            out.append((low, number - 1))
        low = number + 1
    return out


def joined(gaps: Sequence[Range]) -> tuple[Range, ...]:
    """Return no more than ``MOST_GAPS`` ranges that hold those that were given.

    >>> joined([(1, 2), (5, 5)]), len(joined([(n, n) for n in range(0, 9_001, 2)]))
    (((1, 2), (5, 5)), 1126)
    """
    while len(gaps) > MOST_GAPS:
        gaps = [(gaps[at][0], gaps[min(at + 1, len(gaps) - 1)][1]) for at in range(0, len(gaps), 2)]
    return tuple(gaps)


def here(conn: Any, server: str, keeps_gaps: bool) -> str:
    """Return the position of this moment; what is missing among the rows that are there is still expected."""
    last = int(conn.exec_driver_sql(f"SELECT max(id) FROM {CHANGES}").scalar() or 0)
    if not keeps_gaps or not last:
        return str(Place(server, last))
    asked = f"SELECT id FROM {CHANGES} ORDER BY id DESC LIMIT {MOST_GAPS}"
    seen = sorted(row[0] for row in conn.exec_driver_sql(asked))
    return str(Place(server, seen[-1], joined(holes(max(1, seen[0] - _BEFORE), seen[-1], seen))))


def read(conn: Any, at: Place, keeps_gaps: bool, over: Container[Range] = ()) -> Batch:
    """Return a page of what was committed since ``at``.

    Args:
        conn: A connection whose statements see what is committed when they begin.
        at: Where the last page has ended.
        keeps_gaps: Numbers may be committed out of order.
        over: Gaps of ``at`` of which no transaction holds a number any more: what is in them is read, and
            what is not will never come.

    Raises:
        LostPlace: The numbers have begun anew.
    """
    last = conn.exec_driver_sql(f"SELECT max(id) FROM {CHANGES}").scalar()
    if at.last and (last is None or last < at.last):
        raise LostPlace("the journal was emptied, restored or made anew")
    changes: dict[tuple[str, str | None], None] = {}
    left: list[Range] = []
    is_all = True
    for start in range(0, len(at.gaps), _AT_ONCE):
        some = at.gaps[start : start + _AT_ONCE]
        rows = _rows(conn, " OR ".join(f"id BETWEEN {low:d} AND {high:d}" for low, high in some))
        changes.update(dict.fromkeys((row[1], row[2]) for row in rows))
        left += _still_missing(some, [row[0] for row in rows], over)
        is_all &= len(rows) < PAGE
    rows = _rows(conn, f"id BETWEEN {at.last + 1:d} AND {max(last or 0, at.last + 1):d}")
    changes.update(dict.fromkeys((row[1], row[2]) for row in rows))
    if rows and keeps_gaps:
        # Before the first row ever, how far back others may be under way is not known.
        low = at.last + 1 if at.last else max(1, rows[0][0] - _BEFORE)
        left += holes(low, rows[-1][0], [row[0] for row in rows])
    place = Place(at.server, rows[-1][0] if rows else at.last, joined(left))
    return Batch(list(changes), str(place), is_all and len(rows) < PAGE)


def _rows(conn: Any, asked: str) -> list[Any]:
    return list(
        conn.exec_driver_sql(f"SELECT id, tbl, k FROM {CHANGES} WHERE {asked} ORDER BY id LIMIT {PAGE}").all()
    )


def _still_missing(gaps: Sequence[Range], seen: Sequence[int], over: Container[Range]) -> list[Range]:
    """Return what is missing of gaps after a page of their rows, which may have ended amid one of them.

    >>> _still_missing([(1, 3), (7, 9)], [2, 8], over={(7, 9)})
    [(1, 1), (3, 3)]
    """
    end = seen[-1] if len(seen) == PAGE else None
    out: list[Range] = []
    for low, high in gaps:
        if (low, high) not in over:
            out += holes(low, high, seen[bisect_left(seen, low) : bisect_right(seen, high)])
        elif end is not None and end < high:
            out.append((max(low, end + 1), high))
    return out


def without_dead(gaps: Sequence[Range], is_free: Callable[[int, int], bool]) -> list[Range]:
    """Return the ranges that may still come; ``is_free`` tells whether nobody holds a number of a range.

    Halves what is held, so that one transaction under way costs a few questions, not one for each range.

    >>> without_dead([(3, 3), (4, 4), (8, 8)], lambda low, high: not low <= 4 <= high)
    [(4, 4)]
    """
    left, kept = [list(gaps)] if gaps else [], list[Range]()
    for _ in range(200):
        if not left:
            break
        part = left.pop()
        if not is_free(part[0][0], part[-1][1]):
            middle = len(part) // 2
            if middle:
                left += [part[:middle], part[middle:]]
            else:
                kept += part
    return sorted(kept + [gap for part in left for gap in part])
