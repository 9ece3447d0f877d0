"""Pydantic models survive the second tier's serializer, unvalidated and with what was set."""

from __future__ import annotations

import functools
from decimal import Decimal

import pytest

from eventperf.cache import SerializationError
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer

pydantic = pytest.importorskip("pydantic", minversion="2")


class Seat(pydantic.BaseModel):
    number: int
    price: Decimal = Decimal("1.50")


class Event(pydantic.BaseModel):
    id: int
    seats: list[Seat] = pydantic.Field(default_factory=list)
    title: str = pydantic.Field(default="", alias="Title")


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    id: int


class Secret(pydantic.BaseModel):
    id: int
    _token: object = pydantic.PrivateAttr(default="x")


class Unset(pydantic.BaseModel):
    id: int
    _seen: int


class Lazy(pydantic.BaseModel):
    id: int

    @functools.cached_property
    def twice(self) -> int:
        return self.id * 2


def test_a_model_comes_back_as_it_was():
    codec = MsgpackSerializer()
    event = Event(id=1, seats=[Seat(number=3)], Title="Launch")
    again = codec.loads(codec.dumps({"event": event}))["event"]
    assert again == event
    assert type(again.seats[0]) is Seat
    assert type(again.seats[0].price) is Decimal
    assert again.seats[0].model_fields_set == {"number"}
    assert again.model_dump(exclude_unset=True) == event.model_dump(exclude_unset=True)
    assert again.model_copy(update={"id": 2}).id == 2
    assert codec.loads(codec.dumps(Open(id=1))) == Open(id=1)


def looked_at():
    model = Lazy(id=1)
    assert model.twice == 2
    return model


@pytest.mark.parametrize(
    "model",
    [Open(id=1), Open(id=1, more=(2,)), Secret(id=1), Unset(id=1), looked_at()],
    ids=["no-extra", "extra", "private", "private-unset", "cached-property"],
)
def test_what_is_undeclared_or_private_comes_back_too(model):
    codec = MsgpackSerializer()
    again = codec.loads(codec.dumps(model))
    assert again == model
    assert vars(again) == vars(model)
    for note in ("__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__"):
        assert getattr(again, note) == getattr(model, note)


def test_what_would_be_lost_is_refused():
    codec = MsgpackSerializer()
    secret = Secret(id=1)
    secret._token = object()
    for model, word in ((secret, "object"), (Seat.model_construct(), "without its field 'number'")):
        with pytest.raises(SerializationError, match=word):
            codec.dumps(model)


def test_a_model_that_has_changed_is_no_value(monkeypatch):
    codec = MsgpackSerializer()
    blob = codec.dumps(Seat(number=3))

    class Later(pydantic.BaseModel):
        number: str
        price: Decimal = Decimal("1.50")

    monkeypatch.setitem(globals(), "Seat", Later)
    with pytest.raises(Undecodable, match="has changed"):
        codec.loads(blob)
