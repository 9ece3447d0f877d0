"""Many joins: a catalogue of works, 23 tables, skewed and correlated, and 90 statements of 5 to 15 joins.

Statements are drawn by a seed: a work with a few of what hangs on it, names of kinds in place of their
numbers, conditions from a pool, and often the joins that follow from others written out, as analysts and
ORMs do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

Row = Sequence[Any]

_KEY: Final = "id INT PRIMARY KEY"
_TEXT: Final = "VARCHAR(120)"
TABLES: Final = {
    "work_kind": f"{_KEY}, name {_TEXT} NOT NULL",
    "role": f"{_KEY}, name {_TEXT} NOT NULL",
    "org_kind": f"{_KEY}, name {_TEXT} NOT NULL",
    "fact_kind": f"{_KEY}, name {_TEXT} NOT NULL",
    "link_kind": f"{_KEY}, name {_TEXT} NOT NULL",
    "state": f"{_KEY}, name {_TEXT} NOT NULL",
    "country": f"{_KEY}, code VARCHAR(4) NOT NULL, name {_TEXT} NOT NULL",
    "area": f"{_KEY}, name {_TEXT} NOT NULL",
    "topic": f"{_KEY}, area_id INT NOT NULL, name {_TEXT} NOT NULL",
    "org": f"{_KEY}, country_id INT, name {_TEXT} NOT NULL",
    "person": f"{_KEY}, name {_TEXT} NOT NULL, gender VARCHAR(1), code VARCHAR(5)",
    "part": f"{_KEY}, name {_TEXT} NOT NULL",
    "work": f"{_KEY}, kind_id INT NOT NULL, title {_TEXT} NOT NULL, year INT, episode INT",
    "work_alias": f"{_KEY}, work_id INT NOT NULL, title {_TEXT} NOT NULL",
    "person_alias": f"{_KEY}, person_id INT NOT NULL, name {_TEXT} NOT NULL",
    "person_fact": f"{_KEY}, person_id INT NOT NULL, kind_id INT NOT NULL, "
    f"value {_TEXT} NOT NULL, note {_TEXT}",
    "contribution": f"{_KEY}, work_id INT NOT NULL, person_id INT NOT NULL, part_id INT, "
    f"role_id INT NOT NULL, note {_TEXT}",
    "work_org": f"{_KEY}, work_id INT NOT NULL, org_id INT NOT NULL, kind_id INT NOT NULL, note {_TEXT}",
    "work_topic": f"{_KEY}, work_id INT NOT NULL, topic_id INT NOT NULL",
    "work_fact": f"{_KEY}, work_id INT NOT NULL, kind_id INT NOT NULL, value {_TEXT} NOT NULL, note {_TEXT}",
    "work_score": f"{_KEY}, work_id INT NOT NULL, kind_id INT NOT NULL, value VARCHAR(20) NOT NULL",
    "work_link": f"{_KEY}, work_id INT NOT NULL, linked_id INT NOT NULL, kind_id INT NOT NULL",
    "completeness": f"{_KEY}, work_id INT NOT NULL, subject_id INT NOT NULL, state_id INT NOT NULL",
}
#: One index per foreign key, the rule of thumb.
FOREIGN_KEYS: Final = [
    f"{table} ({column.split()[0]})"
    for table, text in TABLES.items()
    for column in text.split(", ")
    if column.split()[0].endswith("_id")
]
KINDS: Final = ["film", "episode", "series", "short", "game", "video", "book"]
ROLES: Final = ["actor", "actress", "writer", "producer", "director", "editor", "composer", "guest"]
ORGS: Final = ["production", "distribution", "effects", "publisher"]
FACTS: Final = [
    *("genre", "language", "country", "release", "budget", "rating", "votes", "height", "birth", "trivia"),
    *(f"fact {n}" for n in range(10, 60)),
]
LINKS: Final = ["follows", "followed by", "remake of", "refers to", "version of", "features", "spin off"]
STATES: Final = ["cast", "crew", "complete", "complete+verified"]
GENRES: Final = ["Drama", "Comedy", "Documentary", "Action", "Horror", "Thriller", "Sci-Fi", "Western", "War"]
CODES: Final = [
    "us",
    "gb",
    "de",
    "fr",
    "jp",
    "in",
    "it",
    "se",
    "pl",
    "br",
    "ca",
    "es",
    "nl",
    "dk",
    "no",
    "cz",
]
_WORDS: Final = [
    "amber",
    "birch",
    "canal",
    "drift",
    "ember",
    "fable",
    "grove",
    "haven",
    "inlet",
    "jolly",
    "karma",
    "lunar",
    "maple",
    "north",
    "ocean",
    "pearl",
    "quest",
    "river",
    "stone",
    "tiger",
    "ultra",
    "vivid",
    "water",
    "xenon",
    "young",
    "zebra",
    "night",
    "money",
    "murder",
    "dream",
    "champion",
]
_NAMES: Final = [
    "Adam",
    "Anna",
    "Bert",
    "Cleo",
    "Dora",
    "Egon",
    "Finn",
    "Gina",
    "Hugo",
    "Iris",
    "Jack",
    "Kira",
    "Lars",
    "Mona",
    "Nils",
    "Olga",
    "Paul",
    "Rosa",
]


class Data:
    """The rows of all tables, the same for one scale: few people, topics and firms are in very many works."""

    def __init__(self, scale: float) -> None:
        self.works = int(60_000 * scale)
        self.people, self.orgs = int(90_000 * scale), max(200, int(9_000 * scale))
        self.topics, self.parts = max(400, int(6_000 * scale)), int(100_000 * scale)

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of one table."""
        draw = Random(f"many joins {table}")
        names = {
            "work_kind": KINDS,
            "role": ROLES,
            "org_kind": ORGS,
            "fact_kind": FACTS,
            "link_kind": LINKS,
            "state": STATES,
            "area": [f"area {n}" for n in range(25)],
        }
        if table in names:
            yield from enumerate(names[table], 1)
        elif table == "country":
            yield from ((n, f"[{c}]", f"land of {c}") for n, c in enumerate(CODES, 1))
        else:
            for number, row in enumerate(getattr(self, f"_{table}")(draw), 1):
                yield (number, *row)

    # What a work is decides what else is true of it.

    def _kind(self, work: int) -> int:
        return (1, 2, 2, 2, 3, 4, 5, 6, 2, 1, 7)[work * 7919 % 11]

    def _year(self, work: int) -> int:
        return 1920 + int(100 * (work / max(1, self.works)) ** 0.4)

    def _skewed(self, draw: Random, most: int, power: float = 3.0) -> int:
        return 1 + int(most * draw.random() ** power)

    def _topic(self, draw: Random) -> Iterator[Row]:
        for n in range(self.topics):
            yield 1 + n % 25, f"{draw.choice(_WORDS)}-{draw.choice(_WORDS)}-{n}" if n > 20 else _WORDS[n]

    def _org(self, draw: Random) -> Iterator[Row]:
        for n in range(self.orgs):
            country = 1 if n < 40 else self._skewed(draw, len(CODES), 2.0)
            yield (
                None if draw.random() < 0.1 else country,
                f"{draw.choice(_WORDS)} {draw.choice(('Film', 'Press', 'Media', 'House'))} {n}",
            )

    def _person(self, draw: Random) -> Iterator[Row]:
        for n in range(self.people):
            name = f"{draw.choice(_NAMES)} {draw.choice(_WORDS).title()} {n}"
            yield name, draw.choice(("m", "m", "f", None)), f"{name[0]}{n % 1000}"

    def _part(self, draw: Random) -> Iterator[Row]:
        for n in range(self.parts):
            yield (
                ("Himself", "Queen", "Narrator", "Host")[n] if n < 4 else f"{draw.choice(_NAMES)} the {n}",
            )

    def _work(self, draw: Random) -> Iterator[Row]:
        for n in range(1, self.works + 1):
            kind = self._kind(n)
            title = " ".join(draw.choice(_WORDS) for _ in range(draw.randint(1, 4))).title()
            year = None if draw.random() < 0.05 else self._year(n)
            yield kind, title, year, draw.randint(1, 200) if kind == 2 else None

    def _work_alias(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.works // 5):
            yield self._skewed(draw, self.works, 1.3), f"the {draw.choice(_WORDS)} {draw.choice(_WORDS)}"

    def _person_alias(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.people // 4):
            yield self._skewed(draw, self.people), f"{draw.choice(_NAMES)} {draw.choice(_WORDS)}"

    def _person_fact(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.people * 2):
            kind = draw.choice((8, 9, 10, 10, 10, draw.randint(11, 40)))
            note = draw.choice((None, None, "own words", f"by {draw.choice(_NAMES)}"))
            yield (
                self._skewed(draw, self.people, 2.0),
                kind,
                f"{draw.choice(_WORDS)} {draw.randint(1, 99)}",
                note,
            )

    def _contribution(self, draw: Random) -> Iterator[Row]:
        for work in range(1, self.works + 1):
            many = {1: 12, 2: 4, 3: 3, 4: 4, 5: 6, 6: 2, 7: 2}[self._kind(work)]
            for _ in range(draw.randint(1, 2 * many - 1)):
                role = draw.choice((1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8))
                notes = (
                    ("(voice)", "(uncredited)") if role < 3 else ("(executive producer)", "(story)", "(book)")
                )
                note = draw.choice(notes) if draw.random() < (0.5 if self._kind(work) == 5 else 0.2) else None
                part = self._skewed(draw, self.parts, 2.5) if role < 3 and draw.random() < 0.8 else None
                yield work, self._skewed(draw, self.people), part, role, note

    def _work_org(self, draw: Random) -> Iterator[Row]:
        for work in range(1, self.works + 1):
            for _ in range(draw.choice((0, 1, 1, 2, 5)) if self._kind(work) != 2 else draw.randint(0, 1)):
                year = self._year(work)
                notes = (None, f"({year}) (worldwide)", f"({year}) (USA) (TV)", "(co-production)", "(VHS)")
                yield (
                    work,
                    self._skewed(draw, self.orgs),
                    draw.choice((1, 1, 2, 2, 2, 3, 4)),
                    draw.choice(notes),
                )

    def _work_topic(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.works * 3):
            work = self._skewed(draw, self.works, 0.7)
            shift = self._kind(work) * 37 if draw.random() < 0.5 else 0
            yield work, 1 + (self._skewed(draw, self.topics) + shift) % self.topics

    def _work_fact(self, draw: Random) -> Iterator[Row]:
        for work in range(1, self.works + 1):
            kind = self._kind(work)
            yield work, 1, GENRES[(kind + int(draw.random() ** 2 * 5)) % len(GENRES)], None
            code = CODES[self._skewed(draw, len(CODES), 2.5) - 1]
            yield work, 3, code, None
            if draw.random() < 0.6:
                yield work, 4, f"{code}:{self._year(work)}", draw.choice((None, "internet", "festival"))
            for _ in range(draw.choice((0, 0, 1, 4))):
                extra = draw.choice((2, 5, 10, draw.randint(11, 60)))
                yield work, extra, f"{draw.choice(_WORDS)} {draw.randint(1, 500)}", None

    def _work_score(self, draw: Random) -> Iterator[Row]:
        for work in range(1, self.works + 1):
            if draw.random() < (0.7 if self._kind(work) == 1 else 0.3):
                yield work, 6, f"{min(9.9, max(1.0, draw.gauss(6.2, 1.4))):.1f}"
                yield work, 7, str(int(10 ** (5 * draw.random() ** 2)))

    def _work_link(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.works // 4):
            one = self._skewed(draw, self.works, 1.5)
            yield one, max(1, one - draw.randint(1, 300)), self._skewed(draw, len(LINKS), 1.7)

    def _completeness(self, draw: Random) -> Iterator[Row]:
        for _ in range(self.works // 6):
            yield self._skewed(draw, self.works, 0.8), draw.choice((1, 1, 2)), draw.choice((3, 3, 3, 4))


# --- statements --------------------------------------------------------------------------------

#: What hangs on a work: aliases with their tables, the joins among them, and how a work is found in them.
_BRANCHES: Final[dict[str, tuple[dict[str, str], list[str], str]]] = {
    "cast": (
        {"c": "contribution", "p": "person", "r": "role"},
        ["p.id = c.person_id", "r.id = c.role_id"],
        "c.work_id",
    ),
    "parts": (
        {"c": "contribution", "p": "person", "pt": "part"},
        ["p.id = c.person_id", "pt.id = c.part_id"],
        "c.work_id",
    ),
    "alias": (
        {"c": "contribution", "p": "person", "pa": "person_alias", "r": "role"},
        ["p.id = c.person_id", "pa.person_id = p.id", "pa.person_id = c.person_id", "r.id = c.role_id"],
        "c.work_id",
    ),
    "known": (
        {"c": "contribution", "p": "person", "pf": "person_fact", "fp": "fact_kind"},
        ["p.id = c.person_id", "pf.person_id = p.id", "fp.id = pf.kind_id"],
        "c.work_id",
    ),
    "orgs": (
        {"wo": "work_org", "o": "org", "ok": "org_kind", "co": "country"},
        ["o.id = wo.org_id", "ok.id = wo.kind_id", "co.id = o.country_id"],
        "wo.work_id",
    ),
    "topics": ({"wt": "work_topic", "t": "topic"}, ["t.id = wt.topic_id"], "wt.work_id"),
    "areas": (
        {"wt": "work_topic", "t": "topic", "a": "area"},
        ["t.id = wt.topic_id", "a.id = t.area_id"],
        "wt.work_id",
    ),
    "facts": ({"wf": "work_fact", "fk": "fact_kind"}, ["fk.id = wf.kind_id"], "wf.work_id"),
    "scores": ({"ws": "work_score", "fs": "fact_kind"}, ["fs.id = ws.kind_id"], "ws.work_id"),
    "kind": ({"wk": "work_kind"}, ["wk.id = w.kind_id"], ""),
    "titles": ({"wa": "work_alias"}, [], "wa.work_id"),
    "links": (
        {"wl": "work_link", "lk": "link_kind", "w2": "work", "wk2": "work_kind", "ws2": "work_score"},
        ["lk.id = wl.kind_id", "w2.id = wl.linked_id", "wk2.id = w2.kind_id", "ws2.work_id = w2.id"],
        "wl.work_id",
    ),
    "whole": (
        {"cm": "completeness", "s1": "state", "s2": "state"},
        ["s1.id = cm.subject_id", "s2.id = cm.state_id"],
        "cm.work_id",
    ),
}
_SHOWN: Final = {
    "w": "title",
    "p": "name",
    "o": "name",
    "t": "name",
    "pt": "name",
    "wa": "title",
    "ws": "value",
}


def _conditions(alias: str, draw: Random) -> list[str]:
    """Return what may be asked of an alias; values differ from draw to draw."""
    word, name, code = draw.choice(_WORDS), draw.choice(_NAMES), draw.choice(CODES[:10])
    year = draw.randint(1950, 2010)
    pool = {
        "w": [
            f"w.year BETWEEN {year} AND {year + draw.choice((3, 5, 10))}",
            f"w.year > {year}",
            f"w.title LIKE '%{word.title()}%'",
            f"(w.title LIKE '{word.title()}%' OR w.title = '{word.title()}')",
            f"w.year > {year} AND w.episode IS NULL",
        ],
        "wk": [f"wk.name = '{draw.choice(KINDS)}'", "wk.name IN ('film', 'episode')"],
        "wk2": [f"wk2.name = '{draw.choice(KINDS)}'"],
        "ws2": [f"ws2.value < '{draw.choice((3.0, 5.0, 6.0))}' AND ws2.kind_id = 6"],
        "p": [f"p.gender = 'f' AND p.name LIKE '%{name}%'", f"p.name LIKE '{name[0]}%'", "p.gender = 'm'"],
        "r": [f"r.name = '{draw.choice(ROLES)}'"],
        "c": [
            "c.note IN ('(voice)', '(uncredited)')",
            "c.note = '(book)'",
            "c.note LIKE '%producer%'",
            "c.note IS NULL",
        ],
        "pt": ["pt.name = 'Queen'", f"pt.name LIKE '{name}%'", "pt.name IN ('Himself', 'Host')"],
        "pa": [f"pa.name LIKE '%{word[:2]}%'"],
        "pf": ["pf.note = 'own words'", f"pf.value LIKE '{word}%'"],
        "fp": [f"fp.name = '{draw.choice(('trivia', 'birth', 'height'))}'"],
        "o": [f"o.name LIKE '%{draw.choice(('Film', 'Press'))}%'", f"o.name LIKE '{word}%'"],
        "ok": [f"ok.name = '{draw.choice(ORGS)}'"],
        "co": [f"co.code = '[{code}]'", f"co.code <> '[{code}]'", f"co.code IN ('[{code}]', '[us]')"],
        "wo": [
            "wo.note LIKE '%(USA)%'",
            "wo.note IS NULL",
            "wo.note LIKE '%(TV)%' AND wo.note LIKE '%(200%'",
        ],
        "t": [
            f"t.name = '{_WORDS[draw.randint(0, 20)]}'",
            f"t.name IN ('{_WORDS[draw.randint(0, 20)]}', '{word}', '{word}-{draw.choice(_WORDS)}-77')",
            f"t.name LIKE '%{word}%'",
        ],
        "a": [f"a.name = 'area {draw.randint(0, 24)}'"],
        "wf": [
            f"fk.name = 'genre' AND wf.value IN ('{draw.choice(GENRES)}', '{draw.choice(GENRES)}')",
            f"fk.name = 'release' AND wf.value LIKE '{code}:%' AND wf.note = 'internet'",
            f"fk.name = 'country' AND wf.value IN ('{code}', 'se', 'no')",
            f"fk.name = 'fact {draw.randint(10, 50)}'",
        ],
        "ws": [
            f"fs.name = 'rating' AND ws.value > '{draw.choice((7.0, 8.0, 9.0))}'",
            f"fs.name = 'rating' AND ws.value < '{draw.choice((3.0, 4.0))}'",
            "fs.name = 'votes'",
        ],
        "lk": [f"lk.name = '{draw.choice(LINKS)}'", "lk.name LIKE '%follow%'"],
        "s1": ["s1.name = 'cast'", "s1.name IN ('cast', 'crew')"],
        "s2": ["s2.name LIKE 'complete%'", "s2.name = 'complete+verified'"],
    }
    return pool.get(alias, [])


def statements(families: int = 30, variants: int = 3) -> list[str]:
    """Return the statements: families of one join graph, whose variants ask for other things of it."""
    out: list[str] = []
    for number in range(families):
        draw = Random(f"family {number}")
        while True:
            names = draw.sample(sorted(_BRANCHES), draw.randint(2, 5))
            if sum("c" in _BRANCHES[n][0] for n in names) + sum("wt" in _BRANCHES[n][0] for n in names) > 2:
                continue
            aliases = {"w": "work"}
            for name in names:
                if aliases.keys() & _BRANCHES[name][0].keys():
                    break
                aliases |= _BRANCHES[name][0]
            else:
                if 6 <= len(aliases) <= 16:
                    break
        out += [_one(names, aliases, Random(f"{number} variant {v}"), draw.random()) for v in range(variants)]
    return out


def _one(names: Sequence[str], aliases: dict[str, str], draw: Random, style: float) -> str:
    joins = [j for n in names for j in _BRANCHES[n][1]]
    hubs = [_BRANCHES[n][2] for n in names if _BRANCHES[n][2]]
    joins += [f"{h} = w.id" for h in hubs]
    if style < 0.6:  # what follows from the others is written out, too
        joins += [f"{a} = {b}" for a, b in itertools.combinations(hubs, 2)]
    asked = [a for a in aliases if _conditions(a, draw)]
    chosen = [a for a in asked if a in ("wf", "ws")]
    chosen += draw.sample(
        [a for a in asked if a not in chosen], min(len(asked) - len(chosen), draw.randint(3, 5))
    )
    where = [*(draw.choice(_conditions(a, draw)) for a in sorted(chosen)), *joins]
    source = ", ".join(f"{t} {a}" for a, t in aliases.items())
    if style > 0.85 and "t" in aliases:
        return (
            f"SELECT t.name, COUNT(*) AS works FROM {source} WHERE {' AND '.join(where)} "
            "GROUP BY t.name ORDER BY works DESC, t.name LIMIT 10"
        )
    shown = ", ".join(f"MIN({a}.{c})" for a, c in _SHOWN.items() if a in aliases)
    return f"SELECT {shown} FROM {source} WHERE {' AND '.join(where)}"
