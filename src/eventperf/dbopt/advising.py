"""One run of ``advise``: statements are analysed, indexes searched for, and everything else looked for."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from .advice import Advice, IndexAdvice, Served
from .analysis.names import analyse
from .indexes.candidates import candidates, column_weights
from .indexes.deadline import Deadline
from .indexes.drops import drops
from .indexes.search import WRITE_S, Choice, Search, Selection
from .options import Limits
from .output.report import size
from .partitions import partitions
from .protocols import Dialect, Planner, Query
from .rewrites.search import rewrites
from .schema.model import IndexSpec, Schema, index_name
from .statements.workload import Sample, Workload

_log = logging.getLogger("eventperf.dbopt")


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

    def advise(self, workload: Workload) -> Advice:
        """Return the best that was found when all is looked at, or time is up."""
        dialect, planner, deadline = self._dialect, self._planner, self._deadline
        advice = Advice(
            dialect=dialect.name, since=workload.since, statements=len(workload), workload=workload
        )
        advice.proof = planner.method
        advice.warnings += [*workload.notes, *planner.notes]
        self._tell(f"analysing {len(workload)} statements")
        queries = self._queries(workload, advice)
        selection = self._search(queries)
        self._fill(advice, selection, queries)
        in_use = frozenset(name for plan in selection.before.values() for name in plan.existing)
        advice.drops = drops(self._schema, dialect, in_use)
        if not deadline.expired():
            self._tell("looking for better forms of statements")
            advice.rewrites = rewrites(queries, self._schema, planner, dialect, expired=deadline.expired)
        if not deadline.expired():
            planner.close()  # partitioned copies take the place of its own in what_if
            limit = self._limits.partition_rows
            advice.partitions, notes = partitions(queries, self._schema, dialect, min_rows=limit)
            advice.warnings += notes
        advice.explains = planner.explains
        advice.is_complete = not deadline.expired()
        if not advice.is_complete:
            advice.warnings.append(f"{deadline.reason}: this is the best found so far")
        return advice

    # --- statements ----------------------------------------------------------------------------

    def _queries(self, workload: Workload, advice: Advice) -> list[Query]:
        out: list[Query] = []
        # Costliest first: what time allows is what matters most.
        ranked = sorted(workload, key=lambda s: (-(s.total_s or 0.0), -s.calls, s.fingerprint.id))
        for number, statement in enumerate(ranked):
            if self._deadline.expired():
                advice.warnings.append(f"{len(ranked) - number} statements were not analysed: no time left")
                break
            name = statement.fingerprint.id
            usable = statement.measurable
            sample = usable[len(usable) // 2] if usable else Sample(statement.sql)
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
            sample = Sample(analysis.sql, sample.values) if analysis.is_cut else sample
            out.append(Query(statement=statement, analysis=analysis, sample=sample))
        self._weigh(out)
        return out

    def _weigh(self, queries: Sequence[Query]) -> None:
        """A query weighs what it costs: measured seconds, or what its plan would take if that is more.

        Some drivers return from ``execute`` before the last row is read, so measured time alone is too low.
        """
        able = self._dialect.capabilities
        for query in queries:
            measured = query.statement.total_s or 0.0
            query.weight = measured or query.statement.calls * 1e-6
            if not query.analysis.uses or (measured and not able.returns_early):
                continue
            try:
                cost = self._planner.plan(query, ()).cost
            except Exception as error:  # whatever a driver raises; the search meets it again and reports it
                _log.debug("%s has no plan to weigh it by: %s", query.id, error)
                continue
            query.weight = max(measured, query.statement.calls * cost * able.seconds_per_cost)

    # --- indexes -------------------------------------------------------------------------------

    def _search(self, queries: Sequence[Query]) -> Selection:
        schema, able, limits = self._schema, self._dialect.capabilities, self._limits
        shared = column_weights(queries)
        wanted = {q.id: candidates(q, schema, able, shared, limits.max_key_columns) for q in queries}
        self._tell(f"asking the planner about {sum(map(len, wanted.values()))} candidates")
        self._deadline.watch(self._planner)
        writes, expired = _writes(queries), self._deadline.expired
        return Search(self._planner, queries, wanted, schema, able, limits, writes, expired).run()

    def _fill(self, advice: Advice, selection: Selection, queries: Sequence[Query]) -> None:
        total = sum(q.weight for q in queries if q.analysis.uses) or 1.0
        advice.unserved = selection.unserved
        saved = 0.0
        for query in queries:
            before, after = selection.before.get(query.id), selection.after.get(query.id)
            if before is not None and after is not None:
                saved += query.weight * (1 - min(1.0, after.cost / before.cost))
        advice.gain = saved / total
        advice.indexes += [self._index(choice, selection, total) for choice in selection.choices]

    def _index(self, choice: Choice, selection: Selection, total: float) -> IndexAdvice:
        dialect = self._dialect
        name = index_name(choice.spec, limit=dialect.identifier_limit)
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
        reason = (
            f"Saves {100 * choice.gain:.1f} % of the workload's time in {len(serves)} "
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
            serves=serves,
            rejected=tuple((s.label(), why) for s, why in choice.rejected),
        )


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
