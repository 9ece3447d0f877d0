"""One run of ``advise``: statements are analysed, indexes searched for, and everything else looked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from eventperf._core.logs import logger

from .advice import Advice, IndexAdvice, Served
from .analysis.names import analyse
from .changes.proving import Proof, Prover, told, with_proof
from .errors import StatementRefused
from .indexes.candidates import candidates, column_weights
from .indexes.deadline import Deadline
from .indexes.drops import drops
from .indexes.prices import NOTHING, Prices, share
from .indexes.search import Search
from .indexes.selection import NOTHING_ASKED, Choice, Selection
from .indexes.states import WRITE_S
from .options import Limits
from .output.report import size
from .partitions import partitions
from .protocols import Dialect, Expects, Grounds, Planner, Query, TellsCopies
from .rewrites.search import rewrites
from .schema.model import NAME_LIMIT, IndexSpec, Schema, index_name
from .statements.workload import Sample, Statement, Workload

_FIRST_ROUND: Final = 20
_FIRST_COPIED: Final = 6  # where tables have to be copied before the first plan
_GROWTH: Final = 6
#: No round has more statements than the planner answers for in this part of what is left, so many times each.
_ROUND: Final = 0.5
_ASKED: Final = 3
#: Seconds for running forms of statements on the real database.
_COMPARE_S: Final = 20.0
#: Characters of a statement that are taken apart in a second, at least; what cannot end in time is not begun.
_PER_S: Final = 10_000
_ALWAYS: Final = 20_000
#: This part of all the time is kept for measurements on a copy, and at most this part of what is left then.
_TRIAL: Final = 0.33
_OF_REST: Final = 0.75
#: Of what is left when a round begins, so much is for reading its statements; those that follow wait.
_READ: Final = 0.25
#: Planning is taken for this part of a measured time at most: it may have been prepared.
_PLANNED: Final = 0.8
_UNPROVED_BYTES: Final = 100_000
_log = logger("eventperf.dbopt")


class Adviser:
    """Advice for one workload; nothing is changed.

    Args:
        dialect: The engine's backend.
        schema: Its tables.
        planner: Judges sets of indexes; closed by the caller.
        limits: Bounds of the advice.
        deadline: When the search has to end.
        tell: Receives lines of progress.
    """

    def __init__(
        self,
        dialect: Dialect,
        schema: Schema,
        planner: Planner,
        limits: Limits,
        deadline: Deadline,
        tell: Callable[[str], None],
    ) -> None:
        self._dialect, self._schema, self._planner = dialect, schema, planner
        self._limits, self._deadline, self._tell = limits, deadline, tell
        self._is_cut = False
        measured_s = min(limits.measure_budget_s, _TRIAL * deadline.left_s())
        self._kept_s = measured_s if isinstance(planner, Grounds) and planner.is_real else 0.0
        self._prices = Prices(planner, self._is_searched, dialect.name)
        self._wanted: dict[str, list[IndexSpec]] = {}
        able = dialect.capabilities
        self._search = Search(
            self._prices, self._wanted, schema, able, limits, self._is_searched, self._search_s
        )

    def advise(self, workload: Workload) -> Advice:
        """Return the best that was found when all is looked at, or time is up."""
        dialect, planner, deadline = self._dialect, self._planner, self._deadline
        advice = Advice(
            dialect=dialect.name, since=workload.since, statements=len(workload), workload=workload
        )
        advice.proof, advice.level = planner.method, "planned" if planner.is_real else "estimated"
        advice.warnings += workload.notes
        advice.warnings += self._schema.notes
        advice.warnings += self._unknown()
        queries, selection = self._rounds(workload, advice)
        proof = self._proof(selection, queries, advice)
        if proof is not None and proof.given_up:
            selection = self._without(selection, proof, advice)
        advice.warnings += [n for n in planner.notes if n not in advice.warnings]
        touched = {name for query in queries for name in query.analysis.tables}
        sizes = {n: self._schema.tables[n] for n in sorted(touched) if n in self._schema.tables}
        advice.tables = {n: (t.rows, t.size_bytes) for n, t in sizes.items()}
        self._fill(advice, selection, queries, proof)
        if isinstance(planner, TellsCopies):
            advice.copied += planner.copied()
        in_use = frozenset(name for plan in selection.before.values() for name in plan.existing)
        advice.drops = [d for d in drops(self._schema, dialect, in_use) if self._allows(d.table)]
        if not deadline.expired():
            self._tell("looking for better forms of statements")
            most = min(_COMPARE_S, deadline.left_s())
            advice.rewrites = rewrites(
                queries, self._schema, planner, dialect, compare_s=most, expired=deadline.expired
            )
        if not deadline.expired():
            planner.close()  # partitioned copies take the place of its own in what_if
            limit = self._limits.partition_rows
            advice.partitions, notes = partitions(queries, self._schema, dialect, min_rows=limit)
            advice.warnings += notes
            advice.partitions = [p for p in advice.partitions if self._allows(p.table)]
        advice.explains = planner.explains
        advice.is_complete = not (deadline.expired() or self._is_cut)
        if not advice.is_complete:
            advice.warnings.append(f"{deadline.reason}: this is the best found so far")
        return advice

    def _is_searched(self) -> bool:
        """Tell whether to end the search; a part of the time is kept for measurements."""
        deadline = self._deadline
        over = deadline.expired() or deadline.left_s() < self._kept_s
        self._is_cut = self._is_cut or over
        return over

    def _search_s(self) -> float:
        """Return the seconds that are left of the search."""
        return max(0.0, self._deadline.left_s() - self._kept_s)

    def _unknown(self) -> list[str]:
        """Warn of an include or exclude that no table answers to: a slip of the pen would hide everything."""
        return [
            f"{pattern} was included or excluded, and no table here has such a name"
            for pattern in (*self._limits.include, *self._limits.exclude)
            if not any(map(Limits(include=[pattern]).allows, map(self._full, self._schema.tables)))
        ]

    def _allows(self, table: str) -> bool:
        return self._limits.allows(self._full(table))

    def _full(self, name: str) -> str:
        """Return a table's name with its schema, also where the search path makes it needless."""
        table = self._schema.tables.get(name)
        space = table.namespace if table is not None else ""
        return f"{space}.{name.rpartition('.')[2]}" if space else name

    # --- statements ----------------------------------------------------------------------------

    def _rounds(self, workload: Workload, advice: Advice) -> tuple[list[Query], Selection]:
        """Analyse and search in rounds, costliest statements first.

        The first round is small, so that its indexes are there within seconds; each later one has more
        statements and begins with what the last one found. Whenever time is up, the best so far stands.
        """
        ranked = sorted(workload, key=lambda s: (-(s.total_s or 0.0), -s.calls, s.fingerprint.id))
        queries: list[Query] = []
        done, size = 0, _FIRST_COPIED if isinstance(self._planner, TellsCopies) else _FIRST_ROUND
        self._deadline.watch(self._planner)
        while done < len(ranked) and not (done and self._is_searched()):
            batch = ranked[done : done + (min(size, self._answered()) if done else size)]
            self._tell(f"analysing {done + 1} to {done + len(batch)} of {len(ranked)} statements")
            taken, fresh = self._queries(batch, queries, advice)
            queries += fresh
            done, size = done + taken, size * _GROWTH
            self._tell(f"asking the planner about {sum(len(self._wanted[q.id]) for q in fresh)} candidates")
            self._search.add(fresh, _writes(queries))
        if done < len(ranked):
            advice.warnings.append(f"{len(ranked) - done} statements were not analysed: no time left")
        return queries, self._search.finish()

    def _answered(self) -> int:
        """Return how many statements the planner can be asked about in the next round, at its pace so far."""
        answers = _ROUND * self._search_s() / max(self._prices.pace_s, 1e-9)
        return max(1, int(min(answers / _ASKED, 1e9)))

    def _queries(
        self, batch: Sequence[Statement], known: Sequence[Query], advice: Advice
    ) -> tuple[int, list[Query]]:
        """Return how many statements were looked at, and what of them can be planned."""
        fresh: list[Query] = []
        taken, least_s = 0, (1 - _READ) * self._search_s()
        for statement in batch:
            if taken and (self._deadline.expired() or self._search_s() < least_s):
                break
            taken += 1
            name = statement.fingerprint.id
            usable = statement.measurable
            sample = usable[len(usable) // 2] if usable else Sample(statement.sql)
            if len(sample.sql) > max(_ALWAYS, _PER_S * self._deadline.left_s()):
                long = f"{name} has {len(sample.sql):,} characters, more than the time left allows"
                advice.warnings.append(f"{long}: it was not analysed; give a larger budget")
                continue
            analysis = analyse(sample.sql, self._schema)
            if analysis.error is not None:
                advice.warnings.append(f"{name} was not analysed: {analysis.error}")
                continue
            if analysis.unknown:
                names = ", ".join(sorted(set(analysis.unknown)))
                advice.warnings.append(f"{name} names what is not here: {names}")
                continue
            if analysis.is_cut:
                advice.warnings.append(f"{name} was cut by the server; its end was not analysed")
            if analysis.tables and not any(map(self._allows, analysis.tables)):
                continue
            if analysis.unread is not None:
                where = f"{name}: the parser does not know what is at {analysis.unread!r}"
                advice.warnings.append(f"{where}; what is before was analysed")
            sample = Sample(analysis.sql, sample.values) if analysis.is_cut else sample
            fresh.append(Query(statement=statement, analysis=analysis, sample=sample))
        if isinstance(self._planner, Expects):
            self._planner.expect(fresh)
        self._weigh(fresh)
        shared = column_weights([*known, *fresh])
        able, most = self._dialect.capabilities, self._limits.max_key_columns
        for query in fresh:
            found = candidates(query, self._schema, able, shared, most)
            self._wanted[query.id] = [
                s
                for s in found
                if self._allows(s.table) and (self._planner.is_real or self._is_large(s.table))
            ]
        return taken, fresh

    def _is_large(self, name: str) -> bool:
        """Tell whether an index may pay without a proof: small tables are read at once."""
        table = self._schema.tables[name]
        width = sum(c.stats.width for c in table.columns.values())
        return max(table.size_bytes, table.rows * width) >= _UNPROVED_BYTES

    def _weigh(self, queries: Sequence[Query]) -> None:
        """A query weighs what it costs: measured seconds, or what its plan would take if that is more.

        Some drivers return from ``execute`` before the last row is read, so measured time alone is too low.
        Where planning is a part of what was measured, no index can save that part.
        """
        able = self._dialect.capabilities
        for query in queries:
            measured = query.statement.total_s or 0.0
            alone = query.statement.alone
            measured *= alone
            calls = query.statement.calls * alone
            query.weight = measured or calls * 1e-6
            if not query.analysis.uses or self._deadline.expired():
                continue
            try:
                plan = self._prices.plan(query, NOTHING)
            except Exception as error:  # whatever a driver raises; the search meets it again and reports it
                _log.debug("%s has no plan to weigh it by: %s", query.id, self._prices.refusal(query, error))
                continue
            query.planning = calls * plan.planning_s
            if measured:
                query.planning = min(query.planning, _PLANNED * measured)
            query.weight = measured - query.planning if measured else 0.0
            if able.returns_early or not measured:
                query.weight = max(query.weight, calls * plan.cost * able.seconds_per_cost)

    # --- indexes -------------------------------------------------------------------------------

    def _proof(self, selection: Selection, queries: Sequence[Query], advice: Advice) -> Proof | None:
        """Run the statements that the chosen set is for on a copy, where one is to be had."""
        planner, deadline = self._planner, self._deadline
        most = min(self._limits.measure_budget_s, _OF_REST * deadline.left_s())
        if not isinstance(planner, Grounds) or not self._kept_s or not selection.choices:
            return None
        if not most:
            advice.trial = "Not measured on a copy: no time was left."
            return None
        indexes = {c.spec: self._index(c, selection, _total(queries)) for c in selection.choices}
        others = {indexes[c.spec].name: [s for s, _ in c.rejected] for c in selection.choices}

        def runners_up(index: IndexAdvice) -> list[IndexAdvice]:
            named = ((s, index_name(s, limit=self._name_limit)) for s in others[index.name])
            return [replace(index, spec=s, name=n) for s, n in named if s.table == index.spec.table]

        end = deadline.clock.monotonic() + most
        try:
            with planner.ground(timeout_s=most / 2) as ground:
                prover = Prover(ground, self._limits, deadline.clock, end, deadline.expired, self._tell)
                proof = prover.prove(list(indexes.values()), queries, runners_up)
                advice.copied += ground.copied
        except Exception as error:  # whatever a driver raises: a proof that fails takes no advice with it
            why = error.reason if isinstance(error, StatementRefused) else type(error).__name__
            _log.debug("nothing was measured on a copy: %s", error)
            advice.trial = f"Not measured on a copy: {why}."
            return None
        advice.trial = told(proof, indexes.values())
        return proof

    def _without(self, selection: Selection, proof: Proof, advice: Advice) -> Selection:
        """Return the selection without what made a statement slower on the copy."""
        gone: dict[IndexSpec, str] = {}
        for choice in selection.choices:
            name = index_name(choice.spec, limit=self._name_limit)
            if name in proof.given_up:
                gone[choice.spec] = f"on {proof.place}: {proof.given_up[name]}"
        more = [i.spec for i in proof.instead.values()]
        return self._search.instead(gone, more)

    @property
    def _name_limit(self) -> int:
        return min(NAME_LIMIT, self._dialect.identifier_limit)

    def _fill(
        self, advice: Advice, selection: Selection, queries: Sequence[Query], proof: Proof | None
    ) -> None:
        total = _total(queries)
        by_id = {q.id: q for q in queries}
        advice.unserved = {n: self._true_reason(by_id.get(n), why) for n, why in selection.unserved.items()}
        saved = 0.0
        for query in queries:
            before, after = selection.before.get(query.id), selection.after.get(query.id)
            if before is not None and after is not None:
                saved += query.weight * (1 - min(1.0, share(after.cost, before.cost)))
        advice.gain = saved / total
        found = [self._index(choice, selection, total) for choice in selection.choices]
        advice.indexes += found if proof is None else [with_proof(i, proof) for i in found]
        if self._dialect.capabilities.refuses_long_values:
            for index in advice.indexes:
                advice.warnings += self._long_values(index)

    def _true_reason(self, query: Query | None, reason: str) -> str:
        """Say why a query that asks for something has no candidate, where its tables are why."""
        if query is None or reason != NOTHING_ASKED:
            return reason
        asked: dict[str, set[str]] = {}
        for use in query.analysis.uses:
            columns = {p.column for p in use.predicates} | {mine for mine, _, _ in use.joins}
            columns |= {o.column for o in use.order_by} | {*use.group_by, *use.min_max, *use.distinct}
            columns |= {p.column for group in use.alternatives for branch in group for p in branch}
            if columns and use.table in self._schema.tables:
                asked.setdefault(use.table, set()).update(columns)
        if not asked:
            return reason
        table = max((self._schema.tables[n] for n in asked), key=lambda t: t.rows)
        keys = [i.name for i in table.indexes if i.valid and i.spec.keys[0].name in asked[table.name]]
        if not keys and table.primary_key and table.primary_key[0] in asked[table.name]:
            keys = ["its primary key"]
        if not table.rows:
            return f"{table.name} is empty: no plan costs anything; ask again when it has rows"
        if not self._is_large(table.name):
            grown = f"; {keys[0]} serves it when it grows" if keys else ""
            return f"{table.name} has {table.rows:,} rows: to read them all costs too little{grown}"
        if keys:
            return f"already served by {', '.join(sorted(keys))}"
        mine = [use for use in query.analysis.uses if use.table == table.name]
        ordered = {p.column for use in mine for p in use.predicates if p.kind == "range"}
        ordered |= {o.column for use in mine for o in use.order_by}
        endless = sorted(c for c in ordered if not table.is_bounded(c))
        if endless and self._dialect.capabilities.refuses_long_values:
            return f"an index in the order of {', '.join(endless)} could refuse values: no limit of length"
        return reason

    def _long_values(self, index: IndexAdvice) -> list[str]:
        """Warn of an index that refuses values which can be written today."""
        table, most = self._schema.tables[index.spec.table], self._dialect.capabilities.max_key_bytes
        if index.spec.method != "btree":
            return []
        endless = {n for n, c in table.columns.items() if c.longest is None and not table.is_bounded(n)}
        return [
            f"{index.name} on {table.name}: {key.name} has no length limit, and an index row holds about "
            f"{most:,} bytes: once the index is there, a longer value cannot be written; give the column a "
            "limit, or leave the index out"
            for key in index.spec.keys
            if (key.is_expression and any(n in key.name for n in endless)) or key.name in endless
        ]

    def _index(self, choice: Choice, selection: Selection, total: float) -> IndexAdvice:
        dialect = self._dialect
        name = index_name(choice.spec, limit=self._name_limit)
        serves = tuple(
            Served(
                fingerprint=q.id,
                statement=q.statement.fingerprint.text,
                calls=q.statement.calls,
                share=q.weight / total,
                cost_before=selection.before[q.id].cost,
                cost_after=selection.after[q.id].cost,
                plan_before=selection.before[q.id].text,
                plan_after=selection.after[q.id].text,
                callers=tuple(q.statement.callers),
            )
            for q in sorted(choice.serves, key=lambda q: -q.weight)
        )
        whose = "planner" if self._planner.is_real else "estimated"
        reason = (
            f"Saves {100 * choice.gain:.1f} % of the workload's {whose} cost in {len(serves)} "
            f"quer{'y' if len(serves) == 1 else 'ies'}, for about {size(choice.size_bytes)}."
        )
        return IndexAdvice(
            name=name,
            spec=choice.spec,
            sql=dialect.create_sql(choice.spec, name),
            reason=reason,
            gain=choice.gain,
            size_bytes=choice.size_bytes,
            write_cost=choice.write_cost,
            proof=self._planner.method,
            level="planned" if self._planner.is_real else "estimated",
            serves=serves,
            rejected=tuple((s.label(), why) for s, why in choice.rejected),
        )


def _total(queries: Sequence[Query]) -> float:
    return sum(q.weight for q in queries if q.analysis.uses) or 1.0


def _writes(queries: Sequence[Query]) -> Callable[[IndexSpec], float]:
    """Return what maintaining an index costs this workload's writers, in seconds."""
    by_table: dict[str, list[tuple[int, str, frozenset[str]]]] = defaultdict(list)
    for query in queries:
        if query.analysis.written is not None:
            table, columns = query.analysis.written
            by_table[table].append((query.statement.calls, query.analysis.kind, columns))

    def cost(spec: IndexSpec) -> float:
        total = 0.0
        touched = {*spec.columns}
        for calls, kind, columns in by_table.get(spec.table, ()):
            if kind != "update" or touched & columns:
                total += calls * WRITE_S * (2 if kind == "update" else 1)
        return total

    return cost
