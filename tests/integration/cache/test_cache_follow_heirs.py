"""Models whose columns lie in several tables: a write to any of them forgets what follows the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventperf.cache import CacheManager, depends, row
from eventperf.contrib.sqlalchemy import follow


class Base(DeclarativeBase):
    pass


class Guest(Base):
    __tablename__ = "guests"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Speaker(Guest):
    __tablename__ = "speakers"
    id: Mapped[int] = mapped_column(sa.ForeignKey("guests.id"), primary_key=True)
    talk: Mapped[str]


class Keynote(Speaker):
    __tablename__ = "keynotes"
    id: Mapped[int] = mapped_column(sa.ForeignKey("speakers.id"), primary_key=True)
    minutes: Mapped[int]


WRITES: dict[str, Callable[[Session], Any]] = {
    "a column of the parent": lambda s: setattr(s.get(Keynote, 1), "name", "new"),
    "as the parent": lambda s: setattr(s.get(Guest, 1), "name", "new"),
    "between them": lambda s: setattr(s.get(Keynote, 1), "talk", "new"),
    "of its own": lambda s: setattr(s.get(Keynote, 1), "minutes", 7),
    "bulk": lambda s: s.execute(sa.update(Guest).values(name="new")),
    "text": lambda s: s.execute(sa.text("UPDATE speakers SET talk = 'new'")),
    "delete": lambda s: s.delete(s.get(Keynote, 1)),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_table_of_a_model_counts(tmp_path, write):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/heirs.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Keynote(id=1, name="a", talk="t", minutes=1))
        session.commit()

    def read() -> list[Any]:
        with Session(engine) as session:
            return [(one.name, one.talk, one.minutes) for one in session.scalars(sa.select(Keynote))]

    with CacheManager() as cache:
        follow(cache, engine)

        def by_row() -> list[Any]:
            depends(*row(Keynote, 1))
            return read()

        kept = [cache.cached(key="all", follows=[Keynote])(read), cache.cached(key="row")(by_row)]
        assert [one() for one in kept] == [read(), read()]
        with Session(engine) as session:
            WRITES[write](session)
            session.commit()
        assert [one() for one in kept] == [read(), read()]
    engine.dispose()


DJANGO = """
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()
from django.db import connection, models
from eventperf.cache import CacheManager, depends, row
from eventperf.contrib.django import follow

class Venue(models.Model):
    class Meta: app_label = "x"
class Guest(models.Model):
    name = models.CharField(max_length=9)
    venue = models.ForeignKey(Venue, on_delete=models.CASCADE)
    class Meta: app_label = "x"
class Speaker(Guest):
    talk = models.CharField(max_length=9)
    class Meta: app_label = "x"
class Alias(Speaker):
    class Meta: app_label, proxy = "x", True
with connection.schema_editor() as editor:
    for model in (Venue, Guest, Speaker): editor.create_model(model)

cache = CacheManager()
follow(cache)
here, there = Venue.objects.create(), Venue.objects.create()
one = Speaker.objects.create(name="a", talk="t", venue=here)
def read(): return sorted(Speaker.objects.filter(venue=here).values_list("name", "talk"))
def by_row():
    depends(*row(Speaker, one.pk))
    return read()
def by_link():
    depends(*row(Alias, venue_id=here.pk))
    return read()
kept = [cache.cached(key="s", follows=[Speaker])(read), cache.cached(key="a", follows=[Alias])(read),
        cache.cached(key="r")(by_row), cache.cached(key="l")(by_link)]
def save(model, **changed):
    found = model.objects.get(pk=one.pk)
    for name, value in changed.items(): setattr(found, name, value)
    found.save()
def raw(): connection.cursor().execute("UPDATE x_guest SET name = 'raw'")
for write in (
    lambda: save(Speaker, name="b"), lambda: save(Guest, name="c"), lambda: save(Alias, talk="d"),
    lambda: Speaker.objects.update(name="e"), lambda: Guest.objects.filter(pk=one.pk).update(name="f"), raw,
    lambda: save(Guest, venue=there), lambda: save(Speaker, venue=here),
    lambda: Speaker.objects.filter(pk=one.pk).delete(),
):
    assert [get() for get in kept] == [read()] * 4
    write()
    assert [get() for get in kept] == [read()] * 4, [get() for get in kept]
print("right")
"""


def test_the_same_in_django():
    pytest.importorskip("django")
    run = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, timeout=120)
    assert run.stdout == "right\n", run.stdout + run.stderr
