"""Who a cached function is: two functions never share a name, one function has the same name everywhere.

A function of a module is known by module and qualified name. What other things may share that name with (a
lambda, a function made inside another one, a wrapper, a partial, an object that can be called) is told apart
by a digest of its code and of what it encloses. Where that has no stable text, or may change, process memory
tells the objects themselves apart; a store that processes share cannot, and the function is refused.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

from .arguments import Unstable, encode, is_fixed
from .names import OURS, class_text, is_script, number, path_of

STABLE: Final = 0
"""Every process that runs the same code finds the same digest, and it can never change."""
PRESENT: Final = 1
"""The digest is of what can change later, such as a list: right as long as nobody else has the same one."""
PRIVATE: Final = 2
"""Something without a text: only this process can tell."""


class Identity:
    """How keys begin that belong to one function.

    Args:
        function: What was decorated.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        known = getattr(function, CACHED, None)
        if isinstance(known, Identity) and known.stands_for(function):
            function = known._function
        self._function: Callable[..., Any] = function
        self._mu = threading.Lock()
        self._number = number()
        self._known: dict[bool, str] = {}
        self.label: str = label(function)
        self._loose: list[Any] = []
        self._owner: Callable[[], Any] = lambda: None
        _named.setdefault(self.label, weakref.WeakSet()).add(self)

    def _has_namesake(self, text: str) -> bool:
        """Tell whether another living function of other code has this plain name (``_`` has, often)."""
        if text != self.label:
            return False
        mine = _code_of(self._function)
        others = [other._function for other in list(_named[text]) if other is not self]
        return any(_code_of(other) != mine and _is_its_name(other) for other in others)

    def adopt(self, wrapper: Any) -> None:
        """Let ``wrapper`` be known as what it wraps: as a cached function, or inside another function."""
        self._owner = weakref.ref(wrapper)
        setattr(wrapper, CACHED, self)

    def stands_for(self, wrapper: Any) -> bool:
        """Tell whether ``wrapper`` itself was adopted (``functools.wraps`` hands attributes on)."""
        return self._owner() is wrapper

    @functools.cached_property
    def is_stable(self) -> bool:
        """Whether the function has a text of its own in every process, whichever others there are."""
        look = Look()
        look.at(self._function)
        return look.level == STABLE

    def prefix(self, *, is_shared: bool) -> str:
        """Return the beginning of every key; settled at the first call, when closures are complete.

        Args:
            is_shared: Whether other processes find entries by it.

        Raises:
            Unstable: It would be shared with another function, or has no stable text.
        """
        found = self._known.get(is_shared)
        if found is not None:
            return found
        with self._mu:
            known = self._known.get(is_shared)
            if known is None:
                known = self._known[is_shared] = self._settle(is_shared)
            return known

    def _settle(self, is_shared: bool) -> str:
        look = Look()
        text = look.at(self._function)
        if look.level == STABLE:
            return self._marked(text + (_code_of(self._function) if self._has_namesake(text) else ""))
        if not is_shared:
            return self._marked("", f"{OURS}{self._number}")
        if look.level == PRIVATE:
            raise Unstable(look.reason)
        self._loose = look.loose
        other = _present.setdefault(text, self)
        if not all(a is b for a, b in zip(self._loose, other._loose, strict=True)):
            raise Unstable(f"function like another one of this name: they enclose {look.reason}")
        return self._marked(text)

    def _marked(self, text: str, mark: str = "") -> str:
        """Return the name, with a mark at its module where it needs more than itself."""
        if text == self.label:
            return text
        module, _, name = self.label.partition(":")
        return f"{module}{mark or '~' + _digest([text])}:{name}"


_named: dict[str, weakref.WeakSet[Identity]] = {}
_present: weakref.WeakValueDictionary[str, Identity] = weakref.WeakValueDictionary()
CACHED: Final = "__eventperf_identity__"
"""Attribute of a cached function: the identity of what it wraps."""


def label(function: Any) -> str:
    """Return module and qualified name of anything that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    if getattr(function, "__module__", None) is None:  # a method of a built-in type
        owner = getattr(function, "__objclass__", None) or type(getattr(function, "__self__", None))
        return f"{owner.__module__}:{function.__qualname__}"
    return path_of(function)


class Look:
    """One look at a function and at what it encloses.

    Attributes:
        level: How far the text of it can be trusted.
        reason: What lowered it, in words.
        loose: The very objects that make two functions of one text the same after all.
    """

    def __init__(self) -> None:
        self.level: int = STABLE
        self.reason: str = ""
        self.loose: list[Any] = []
        self._seen: set[int] = set()

    def lower(self, level: int, reason: str, loose: object) -> str:
        if level > self.level:
            self.level, self.reason = level, reason
        self.loose.append(loose)
        return "?"

    def at(self, thing: Any) -> str:
        """Return the text of anything that can be called."""
        known = getattr(thing, CACHED, None)
        if isinstance(known, Identity) and known.stands_for(thing):
            thing = known._function
        if id(thing) in self._seen:
            return "^"  # calls itself
        self._seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, functools.partial):
            given = self.value((*thing.args, *sorted(thing.keywords.items())), "arguments")
            return f"{self.at(thing.func)}~{_digest([given])}"
        if isinstance(thing, types.MethodType):
            return f"{self.at(thing.__func__)}~{_digest([self.value(thing.__self__, 'self')])}"
        if isinstance(thing, (types.BuiltinFunctionType, types.MethodWrapperType)):
            owner = thing.__self__
            if owner is None or isinstance(owner, (types.ModuleType, type)):
                return label(thing)
            return f"{label(thing)}~{_digest([self.value(owner, 'self')])}"
        if isinstance(thing, type):
            return self.value(thing, "class") if "<" in thing.__qualname__ else path_of(thing)
        if callable(inner := getattr(thing, "__wrapped__", None)):  # lru_cache, tasks of a queue
            self.lower(PRESENT, f"{inner!r}", thing)
            return f"{class_text(type(thing))}~{self.at(inner)}"
        return label(thing) if inspect.isroutine(thing) else f"{label(thing)}~{self.value(thing, 'self')}"

    def _function(self, function: types.FunctionType) -> str:
        name = path_of(function)
        is_wrapper = hasattr(function, "__wrapped__")
        is_at_home = _is_at_home(function)
        if not is_wrapper and is_at_home and _is_its_name(function):
            return name
        if not is_at_home:
            self.lower(PRESENT, "a module that its name does not lead to", function.__globals__)
        parts = [_code_text(function.__code__)]
        rebound = {i.argval for i in dis.get_instructions(function) if i.opname in _REBINDS}
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # not assigned yet
                parts.append(self.lower(PRESENT, f"{variable!r}, which has no value yet", cell))
                continue
            if variable in rebound:
                self.lower(PRESENT, f"{variable!r}, which changes", cell)
            parts.append(f"{variable}={self.value(held, repr(variable), is_wrapper=is_wrapper)}")
        return f"{name}~{_digest(parts)}"

    def value(self, held: Any, what: str, *, is_wrapper: bool = False) -> str:
        """Return the text of something enclosed."""
        if isinstance(held, types.ModuleType):
            return f"<{held.__name__}>"
        if isinstance(held, _CALLABLE) or (inspect.isroutine(held) and not isinstance(held, type)):
            text = self.at(held)
            defaults = (getattr(held, "__defaults__", None), getattr(held, "__kwdefaults__", None))
            return text if defaults == (None, None) else f"{text}{self.value(defaults, what)}"
        try:
            text = encode(held)
        except (Unstable, RecursionError):
            # A decorator that keeps the name (functools.wraps) rarely makes two functions out of one.
            level = PRESENT if is_wrapper else PRIVATE
            return self.lower(level, f"function that encloses {what}, a {type(held).__name__}", held)
        if OURS in text:
            self.lower(PRIVATE, f"function that encloses {what}, of a class made inside a function", held)
        elif not is_fixed(held):
            self.lower(PRESENT, f"{what}, a {type(held).__name__}", held)
        return text


_CALLABLE: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_REBINDS: Final = frozenset({"STORE_DEREF", "DELETE_DEREF"})


def _is_its_name(function: Any) -> bool:
    """Tell whether module and qualified name lead to this function and no other."""
    if not isinstance(function, types.FunctionType):
        return False
    code, qualname = function.__code__, function.__qualname__
    if "<" in qualname or is_script(function.__module__ or ""):
        return False
    if sys.version_info >= (3, 11) and code.co_qualname != qualname:
        return False
    return code.co_name == qualname.rpartition(".")[2] and code.co_freevars in ((), ("__class__",))


def _is_at_home(function: types.FunctionType) -> bool:
    """Tell whether the names that a function looks up are those of the module that is known by its name.

    They are not in a plug-in loaded from a file of its own, in a module loaded twice, or after ``exec``.
    """
    module = sys.modules.get(function.__globals__.get("__name__", ""))
    return module is not None and vars(module) is function.__globals__


def _code_of(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return _code_text(code) if code is not None else ""


def _code_text(code: types.CodeType) -> str:
    consts = ",".join(map(_const_text, code.co_consts))
    return f"{code.co_code.hex()};{code.co_names};{code.co_varnames};{code.co_freevars};{consts}"


def _const_text(const: Any) -> str:
    if isinstance(const, types.CodeType):
        return _code_text(const)
    if isinstance(const, tuple):
        return f"({','.join(map(_const_text, const))})"
    if isinstance(const, frozenset):  # its order is another one in each process
        return f"{{{','.join(sorted(map(_const_text, const)))}}}"
    return f"{type(const).__name__}{const!r}"


def _digest(parts: list[str]) -> str:
    text = "\n".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
