"""What a part of the console is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventperf._pages.html import Html
from eventperf.contrib.console.view import Attention, Done, View


class NotHere(Exception):
    """What was asked for does not exist; the text is for people."""


class Refused(Exception):
    """An action that cannot be done as it was asked; the text is for people."""


class Part(Protocol):
    """One room on the console.

    Attributes:
        path: Where it is shown, ``"/queues"``.
        title: The name of its name in the texts.
        actions: What its forms may ask for.
    """

    path: str
    title: str
    actions: frozenset[str]

    def attention(self) -> Sequence[Attention]:
        """Return what a person should look at; called after :meth:`overview`, and reads nothing anew."""
        ...

    def overview(self, view: View) -> Html:
        """Return the room in a few lines."""
        ...

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Return title and body of the page that was asked for.

        Raises:
            NotHere: There is no such page, or what it is about is gone.
        """
        ...

    def act(self, view: View, action: str, subject: str | None) -> Done | tuple[str, Sequence[object]]:
        """Do what a form asks for, and say what was done; or return a page that asks whether to go on.

        Raises:
            Refused: It cannot be done.
        """
        ...
