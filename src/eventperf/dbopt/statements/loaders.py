"""What turns an N+1 loop into one statement, where the ORM tells."""

from __future__ import annotations

from typing import Any, Final

#: What to do where every round asks for the same: no loader would.
ONCE: Final = (
    "its values are equal in every round: run it once, before the loop, and keep what it returns, "
    "unless the loop waits for a change"
)


class Guess(str):
    """What to do where no ORM tells: the loop may as well be one that a program wants."""

    __slots__ = ()


def general() -> str:
    return Guess("fetch all rows in one statement (WHERE key IN (...)), or join them in the first one")


def of_batches(fix: str, text: str) -> str:
    """Return the fix, or for a statement that has a list already what a loop of batches wants.

    >>> of_batches(general(), "select a from t where b in ( ? )").partition(":")[0]
    'it has IN (...) already'
    """
    if not isinstance(fix, Guess) or " in ( ? )" not in text:
        return fix
    return Guess(
        "it has IN (...) already: collect what all rounds ask for, and run it once before the loop above"
    )


def equal(one: object, other: object) -> bool:
    """Tell whether two rounds ask for the same; values that cannot be compared differ.

    >>> equal(("q", (1, "a")), ("q", (1, "a"))), equal(("q", {"n": 1}), ("q", {"n": 2}))
    (True, False)
    """
    try:
        return bool(one == other)
    except Exception:  # an array's or a stranger's own idea of equality
        return False


def loader_option(context: Any) -> str:
    """Name the loader option that turns the loop into one statement, where the ORM tells."""
    options = getattr(context, "execution_options", None) or {}
    load = options.get("_sa_orm_load_options")
    state = getattr(getattr(context, "compiled", None), "compile_state", None)
    path = list(getattr(state, "current_path", None) or ())
    if load is not None and len(path) >= 2 and getattr(load, "_lazy_loaded_from", None) is not None:
        steps = []
        for mapper, relation in zip(path[::2], path[1::2], strict=False):
            loader = "selectinload" if getattr(relation, "uselist", False) else "joinedload"
            steps.append(f"{loader}({mapper.class_.__name__}.{relation.key})")
        return f"options({'.'.join(steps)})"
    refreshed = getattr(load, "_refresh_state", None)
    if refreshed is not None:
        name = refreshed.mapper.class_.__name__
        only = sorted(getattr(getattr(state, "compile_options", None), "_only_load_props", None) or ())
        if only and not refreshed.expired:
            return f"options({', '.join(f'undefer({name}.{column})' for column in only)})"
        return f"{name} objects expire at each commit: expire_on_commit=False, or one SELECT that loads all"
    return general()
