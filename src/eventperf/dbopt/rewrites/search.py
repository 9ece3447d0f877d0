"""Better forms of statements, each with the condition under which it gives the same rows.

A rewrite is a candidate, never a rule. It is advised when its condition holds in what the engine promises,
made rows and real rows show no difference, the engine prices it no higher, and it does not run slower. It is
called safe only when made rows and real rows were compared, and there were some: what could not have shown a
difference shows nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

from sqlglot import exp
from sqlglot.errors import SqlglotError

from eventperf._core.logs import logger
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.findings import RewriteAdvice
from eventperf.dbopt.protocols import Dialect, Measurement, Planner, Promises, Query, Scratch, TellsCost
from eventperf.dbopt.schema.model import Schema
from eventperf.dbopt.statements.told import reason
from eventperf.dbopt.statements.workload import Sample

from .known import is_open
from .proof import Trial, compare, tables_of
from .rules import RULES, SIMPLER
from .rules.words import hints
from .tree import Form, Node, has_parameters, text_of
from .verify import TIMEOUT_S, Rows

_log = logger("eventperf.dbopt")

_LARGEST: Final = 2_000  # parts of a statement: each rule looks at all of them, in each step
_LEAST_S: Final = 0.1
_SLOWER: Final = 1.1
_CLEARLY: Final = 1.5
_NOISE_S: Final = 0.001
_STEPS: Final = 4


def rewrites(
    queries: Sequence[Query],
    schema: Schema,
    planner: Planner,
    dialect: Dialect,
    *,
    compare_s: float = 20.0,
    expired: Callable[[], bool] = lambda: False,
) -> list[RewriteAdvice]:
    """Return rewrites that passed every test, costliest statement first, and hints without a new form.

    Args:
        queries: The analysed workload.
        schema: Nullability, keys and types, on which conditions rest.
        planner: Prices both forms.
        dialect: Runs both forms, for a comparison of their rows and times.
        compare_s: Seconds for running forms on the real database; later ones are not advised.
        expired: Asked between statements; what was found by then is returned.
    """
    out: list[RewriteAdvice] = []
    end = time.monotonic() + compare_s
    with dialect.scratch() if isinstance(dialect, Scratch) else nullcontext() as connection:
        for query in sorted(queries, key=lambda q: -q.weight):
            if expired() or time.monotonic() > end:
                break
            tree = query.analysis.tree
            if (
                not isinstance(tree, (exp.Select, exp.SetOperation))
                or query.analysis.is_cut
                or query.analysis.unread
            ):
                continue
            is_short = sum(1 for _ in tree.walk()) <= _LARGEST
            if is_short and is_open(query.analysis.sql, tree, schema.dialect):
                promised = _promised(tree, schema, dialect)
                found = _Bench(query, schema, promised, planner, dialect, connection, end).best(tree)
                out += [found] if found is not None else []
            out += _hints(query, tree, schema)
    return out


def _promised(tree: Node, schema: Schema, dialect: Dialect) -> Schema:
    """Return what the engine itself promises of the tables that a statement reads."""
    tables = tables_of(tree, schema)
    if not isinstance(dialect, Promises) or not tables:
        return schema
    return dialect.promised(schema, [t.name for t in tables])


def _hints(query: Query, tree: Node, schema: Schema) -> list[RewriteAdvice]:
    return [
        RewriteAdvice(
            fingerprint=query.id,
            rule=rule,
            before=query.statement.fingerprint.text,
            after=None,
            is_safe=False,
            verdict=verdict,
            advice=advice,
            callers=tuple(query.statement.callers),
        )
        for rule, verdict, advice in hints(tree, schema, query.sample.values)
    ]


class _Bench:
    """One statement, and everything a form of it has to pass."""

    def __init__(
        self,
        query: Query,
        schema: Schema,
        promised: Schema,
        planner: Planner,
        dialect: Dialect,
        connection: Any,
        end: float,
    ) -> None:
        self._query, self._schema, self._planner, self._dialect = query, schema, planner, dialect
        self._promised, self._connection = promised, connection
        self._rows, self._end = Rows(dialect, promised, end), end
        self._before: Measurement | None = None

    def best(self, tree: Node) -> RewriteAdvice | None:
        """Return the cheapest form that passes; the whole chain of rules first, then single ones."""
        seen = {text_of(tree, self._schema.dialect)}
        first = self._forms(tree, seen)
        if not first:
            return None  # nearly all statements: the planner is not asked
        cost = self._cost(self._query.analysis.sql)
        singles = self._priced(first, cost)
        if not singles:
            return None
        chain = self._chain(*singles[0], seen)
        for form, price in [chain, *(s for s in singles[:4] if s[0].tree is not chain[0].tree)][:4]:
            found = self._proved(tree, form, cost, price)
            if found is not None:
                return found
        return None

    def _chain(self, form: Form, price: float | None, seen: set[str]) -> tuple[Form, float | None]:
        """Apply the rule that the engine prices lowest, again and again."""
        steps = [form]
        while len(steps) < _STEPS:
            priced = self._priced(self._forms(steps[-1].tree, seen), price)
            if not priced:
                break
            form, price = priced[0]
            steps.append(form)
        rules = list(dict.fromkeys(f.rule for f in steps))
        conditions = list(dict.fromkeys(f.condition for f in steps))
        advice = list(dict.fromkeys(f.advice for f in steps))
        whole = Form(", ".join(rules), steps[-1].tree, "; ".join(conditions), ". ".join(advice))
        return whole, price

    def _forms(self, tree: Node, seen: set[str]) -> list[tuple[Form, str]]:
        """Return the forms that the rules give and that were not met before, each with its text."""
        out: list[tuple[Form, str]] = []
        for rule in RULES:
            if time.monotonic() > self._end:
                break
            try:
                forms = list(rule.forms(tree, self._promised))
            except (SqlglotError, AttributeError, KeyError, TypeError, ValueError, StopIteration):
                continue  # a tree of a shape this rule does not know is left as it is
            for form in forms[:6]:
                text = text_of(form.tree, self._schema.dialect)
                if text not in seen:
                    seen.add(text)
                    out.append((form, text))
        return out

    def _priced(
        self, forms: Sequence[tuple[Form, str]], price: float | None
    ) -> list[tuple[Form, float | None]]:
        """Return those that the engine prices no higher, cheapest first."""
        priced = [(form, self._cost(text)) for form, text in forms]
        kept = [p for p in priced if price is None or (p[1] is not None and p[1] <= price * 1.0001)]
        return sorted(kept, key=lambda pair: pair[1] if pair[1] is not None else 0.0)

    def _cost(self, text: str) -> float | None:
        """Ask the engine; ``None`` when it gives no figure, or refuses the form."""
        values = self._query.sample.values
        try:
            if not self._planner.is_real and isinstance(self._dialect, TellsCost):
                return self._dialect.cost(text, values)
            analysis = analyse(text, self._schema)
            if analysis.error is not None:
                return None
            query = replace_sample(self._query, text, analysis)
            return self._planner.plan(query, ()).cost
        except Exception as error:  # whatever a driver raises at a form that the engine refuses
            said = reason(error, text, self._dialect.name)
            _log.debug("no cost for a form of %s: %s", self._query.id, said)
            return None

    # --- proof ---------------------------------------------------------------------------------

    def _proved(
        self, tree: Node, form: Form, before: float | None, after: float | None
    ) -> RewriteAdvice | None:
        left = self._end - time.monotonic()
        trial = compare(tree, form.tree, self._promised, self._connection, seconds=left)
        if not trial.equal or not trial.sets:
            return None
        text = text_of(form.tree, self._schema.dialect)
        times = self._times(text)
        if times is None and (before is None or after is None):
            return None  # neither priced nor measured
        if times is not None and not _is_no_slower(*times):
            return None
        if not _gains(form, before, after, times):
            return None
        too_long = times is not None and times[0].capped and self._known(times[0]) >= TIMEOUT_S
        sample = self._query.sample
        own = self._query.analysis.sql
        real = self._rows.compare(own, tree, form.tree, sample.values, too_long=too_long)
        if real.differs:
            return None
        verdict = f"{form.condition}; {_tried(trial)}; {real.text}"
        return RewriteAdvice(
            fingerprint=self._query.id,
            rule=form.rule,
            before=self._query.statement.fingerprint.text,
            after=text,
            is_safe=trial.with_rows > 0 and real.shows,
            verdict=verdict,
            advice=form.advice,
            cost_before=before,
            cost_after=after,
            seconds_before=None if times is None else self._known(times[0]),
            seconds_after=times[1].seconds if times is not None else None,
            callers=tuple(self._query.statement.callers),
        )

    def _times(self, text: str) -> tuple[Measurement, Measurement] | None:
        """Measure both forms; a form that seems slower gets a second chance, for machines are noisy."""
        found = self._pair(text)
        is_close = found is not None and found[1].seconds < found[0].seconds * _CLEARLY
        if found is not None and is_close and not _is_no_slower(*found):
            self._before = None
            found = self._pair(text)
        return found

    def _known(self, before: Measurement) -> float:
        """Return the seconds of the form in use: where it was stopped, what was recorded if that is more."""
        recorded = self._query.statement.mean_s or 0.0
        return max(before.seconds, recorded) if before.capped else before.seconds

    def _pair(self, text: str) -> tuple[Measurement, Measurement] | None:
        sample = self._query.sample
        if sample.values is None and has_parameters(self._query.analysis.tree):
            return None
        values = sample.values or ()
        most = min(TIMEOUT_S, max(_LEAST_S, self._end - time.monotonic()))
        after = self._dialect.measure([Sample(text, values)], runs=3, timeout_s=most)
        # Whether the form in use takes longer is all there is to know: it may run about twice as long.
        most = min(most, max(_LEAST_S, self._end - time.monotonic()))
        enough = most if after is None else min(most, 2 * after.seconds + _LEAST_S)
        if self._before is None or (self._before.capped and self._before.seconds < enough):
            own = [Sample(self._query.analysis.sql, values)]
            self._before = self._dialect.measure(own, runs=3, timeout_s=enough)
        if after is None and self._before is not None:
            after = replace(self._before, seconds=most, capped=True)
        return None if self._before is None or after is None else (self._before, after)


def replace_sample(query: Query, text: str, analysis: Any) -> Query:
    """Return ``query`` with another text and the same values."""
    return Query(
        statement=query.statement,
        analysis=analysis,
        sample=Sample(text, query.sample.values),
        weight=query.weight,
    )


def _is_no_slower(before: Measurement, after: Measurement) -> bool:
    if after.capped:
        return False
    return before.capped or after.seconds <= before.seconds * _SLOWER + _NOISE_S


def _gains(
    form: Form, before: float | None, after: float | None, times: tuple[Measurement, Measurement] | None
) -> bool:
    """Another form of the same price is noise, unless it is simpler or opens the way for an index."""
    if set(form.rule.split(", ")) <= SIMPLER:
        return True
    if before is not None and after is not None and after < before * 0.98:
        return True
    return times is not None and times[0].seconds > times[1].seconds * _SLOWER + _NOISE_S


def _tried(trial: Trial) -> str:
    return (
        f"equal on {trial.sets} sets of made rows with NULLs, duplicates and empty tables "
        f"({trial.with_rows} with a result; {trial.where})"
    )
