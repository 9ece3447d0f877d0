"""Every English sentence of the console, in one place; another language is another such table."""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, str]] = {
    "skip": "Skip to the content",
    "overview": "Overview",
    "queues": "Queues",
    "jobs": "Jobs",
    "job": "Job",
    "workers": "Workers",
    "no_live_workers": "No worker is alive: eventperf queue worker myapp.jobs:queues runs one.",
    "many_versions": "Workers of several versions run: {versions}",
    "some_workers": "The first {n} of {all}.",
    "rules": "Schedules and limits",
    "schedules": "Schedules",
    "limits": "Limits",
    "cache": "Cache",
    "database": "Database",
    "scaling": "Scaling",
    "loops": "Loops: one statement a row (N+1)",
    "advice": "Advice",
    "advice_whole": "Everything: plans, tables, rewrites, what was not chosen",
    "dearest_loads": "Keys whose loading cost most since this process began",
    "time_by_statement": "database time by statement, literals hidden",
    "new": "new",
    "slower": "slower",
    "faster": "faster",
    "no_longer": "No longer advised: {indexes}",
    "attention": "What needs attention",
    "all_well": "Nothing. Every part that is connected answers and works.",
    "pause_live": "Live",
    "nothing_connected": "Nothing is connected yet: hand a manager to Console(queues=..., cache=..., ...).",
    "unreadable": "{part} cannot be read: {error}",
    "not_found": "There is no such page here.",
    "back": "Back to the overview",
    "forbidden": "You may not do this: the application that mounts the console decides who may.",
    "hidden": "Hidden: the application does not let you see {what}.",
    "refused_origin": "This form did not come from the console's own page, so nothing was done. Behind a "
    "proxy, hand the Host header through unchanged.",
    "refused_token": "This page was too old, or your browser keeps no cookies, so nothing was done. Load the "
    "page again.",
    "too_large": "The form is larger than the console takes.",
    "no_text_search": "A search in payloads is for those who may see payloads.",
    "nothing_chosen": "Nothing was chosen, so nothing was done.",
    "confirm": "Do it",
    "cancel": "Do not",
    "run_in": "to run in (0s, 10m, 2h)",
    "purge": "Delete",
    "purge_these": "Delete {n} {state} jobs of {queue} for good?",
    "purge_kept": "Delete all {state} jobs of {queue} that are kept, for good?",
    # What was done, after a form
    "done_pause": "Paused; running jobs go on.",
    "done_resume": "Runs again.",
    "done_retry": "{n} jobs run again.",
    "done_cancel": "{n} jobs were cancelled.",
    "done_reschedule": "{n} jobs have a new time; those that had begun keep theirs.",
    "done_purge": "{n} jobs were deleted.",
    "done_invalidate_tag": "The tag was invalidated: whatever carries it is loaded anew.",
    "done_invalidate": "{n} entries were invalidated.",
    "done_advise": "The search has begun.",
    "done_freeze": "Frozen: decisions are made and shown, none is carried out.",
    "done_unfreeze": "Decisions are carried out again.",
    "done_apply": "The change has begun.",
    # Attention
    "dead_jobs": "{n} dead jobs in {queue}",
    "paused_queue": "{queue} is paused with {n} jobs waiting",
    "no_workers": "{n} jobs wait in {queue} and no worker is alive",
    "late_queue": "The oldest job in {queue} has waited {age}",
    "breaker_open": "The breaker of {cache} is open: reads go to the loaders",
    "coherence_down": "{cache} is not told of other processes' changes: {state}",
    "replaying": "{n} invalidations of {cache} wait for its store",
    "blind": "{target} is blind: {why}",
    "scale_failed": "{target} could not be scaled: {why}",
    "frozen": "{target} is frozen",
    "slow_top": "One statement takes {share} of the recorded time",
    "advice_ready": "{n} indexes are advised",
    # Empty states
    "no_jobs": "No job matches. Loosen the filters, or wait: finished jobs are kept for a bounded time only.",
    "no_schedules": "This process declares no schedule: cron(...) belongs where the manager is made.",
    "no_limits": "No limit is declared: QueueManager(limits=[Limit(...)]) bounds starts and running jobs.",
    "no_minutes": "No job has finished in this time.",
    "no_decisions": "No decision is recorded yet: the scaler has not ticked here, or its log is empty.",
    "no_slow": "No statement is recorded yet. Give the optimizer a QueryRecorder, or let the server record "
    "(pg_stat_statements, performance_schema).",
    "no_loops": "None was seen. A QueryRecorder as the optimizer's source sees them, a server does not.",
    "no_loads": "Nothing was loaded here yet.",
    "no_advice": "No search was made here yet.",
    "no_calendar": "No calendar is connected.",
}


def say(text: str, **values: object) -> str:
    """Return one text with its values.

    >>> say("dead_jobs", n=3, queue="low")
    '3 dead jobs in low'
    """
    return TEXTS[text].format(**values) if values else TEXTS[text]
