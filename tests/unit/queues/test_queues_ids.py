"""Job ids: unique, and of a form that every place takes."""

from __future__ import annotations

from random import Random

from eventperf.queues.producing.spec import check_job_id, new_ids


def test_ids_are_unique_and_never_look_like_an_option() -> None:
    ids = new_ids(20_000, Random(1).getrandbits)
    assert len(set(ids)) == 20_000
    assert not [one for one in ids if one.startswith("-") or check_job_id(one) != one]
