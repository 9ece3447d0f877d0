"""Conformance suites of the scaling room; subclass one and return your object from its fixture.

.. code-block:: python

    class TestMyTarget(ReplicaTargetSuite):
        @pytest.fixture
        def target(self): return MyTarget(...)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventperf.errors import EventPerfError
from eventperf.scaling import (
    MetricSource,
    Observation,
    Policy,
    ReplicaTarget,
    Sample,
    StateStore,
    TargetState,
)


class ReplicaTargetSuite:
    """What every :class:`~eventperf.scaling.ReplicaTarget` does. ``target`` starts with 2 replicas."""

    @pytest.fixture
    def target(self) -> ReplicaTarget:
        raise pytest.UsageError("override the fixture 'target'")

    @pytest.fixture
    def change_outside(self, target: ReplicaTarget) -> Callable[[int], None]:
        """Change the number behind the target's back; override where that is possible."""
        pytest.skip("this target cannot be changed by others")

    def test_it_has_a_name(self, target: ReplicaTarget) -> None:
        assert isinstance(target.name, str)
        assert target.name

    def test_it_reads_what_is_there(self, target: ReplicaTarget) -> None:
        state = target.read()
        assert state.replicas == 2
        assert 0 <= state.ready <= 2

    @pytest.mark.parametrize("replicas", [5, 1, 0, 2])
    def test_a_change_is_seen_by_the_next_read(self, target: ReplicaTarget, replicas: int) -> None:
        target.read()
        target.scale(replicas, reason="test")
        assert target.read().replicas == replicas

    def test_asking_twice_is_asking_once(self, target: ReplicaTarget) -> None:
        target.read()
        target.scale(4)
        target.read()
        target.scale(4)
        assert target.read().replicas == 4

    @pytest.mark.parametrize("wrong", [2.5, -1, True, "3", None])
    def test_what_is_no_number_of_replicas_is_refused(self, target: ReplicaTarget, wrong: object) -> None:
        target.read()
        with pytest.raises(EventPerfError):
            target.scale(wrong)  # type: ignore[arg-type]
        assert target.read().replicas == 2

    def test_an_outside_change_is_read(
        self, target: ReplicaTarget, change_outside: Callable[[int], None]
    ) -> None:
        target.read()
        change_outside(7)
        assert target.read().replicas == 7


class MetricSourceSuite:
    """What every :class:`~eventperf.scaling.MetricSource` does."""

    @pytest.fixture
    def source(self) -> MetricSource:
        raise pytest.UsageError("override the fixture 'source'")

    def test_samples_come_by_known_names(self, source: MetricSource) -> None:
        samples = source.read()
        assert samples
        assert set(samples) <= {"cpu", "memory", "rps", "backlog"}

    def test_a_sample_has_a_value_or_says_why_not(self, source: MetricSource) -> None:
        for sample in source.read().values():
            assert (sample.value is None) == (sample.error is not None)
            assert sample.age_s >= 0


class StateStoreSuite:
    """What every :class:`~eventperf.scaling.StateStore` does; ``reopen`` opens the same place again."""

    @pytest.fixture
    def reopen(self) -> Callable[[], StateStore]:
        raise pytest.UsageError("override the fixture 'reopen'")

    def test_what_was_never_saved_is_none(self, reopen: Callable[[], StateStore]) -> None:
        assert reopen().load("web.1") is None

    @pytest.mark.parametrize("data", [b"x", bytes(range(256)) * 64, b"\x00\xff\n"])
    def test_what_was_saved_is_found_by_the_next_process(
        self, reopen: Callable[[], StateStore], data: bytes
    ) -> None:
        reopen().save("web.1", data)
        assert reopen().load("web.1") == data

    def test_the_last_save_stands_and_other_names_are_left_alone(
        self, reopen: Callable[[], StateStore]
    ) -> None:
        store = reopen()
        store.save("web.1", b"long" * 100)
        store.save("web.2", b"two")
        store.save("web.1", b"one")
        assert (reopen().load("web.1"), reopen().load("web.2")) == (b"one", b"two")

    def test_threads_save_names_of_their_own_at_once(self, reopen: Callable[[], StateStore]) -> None:
        store, names = reopen(), [f"target-{n}.a" for n in range(12)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda name: store.save(name, name.encode()), names))
        assert [reopen().load(name) for name in names] == [name.encode() for name in names]


class PolicySuite:
    """What every :class:`~eventperf.scaling.Policy` does."""

    @pytest.fixture
    def policy(self) -> Policy:
        raise pytest.UsageError("override the fixture 'policy'")

    @staticmethod
    def see(replicas: int, **samples: Sample) -> Observation:
        """Return an observation of a settled target."""
        return Observation(
            at_s=1000.0,
            state=TargetState(replicas=replicas, ready=replicas),
            min_replicas=1,
            max_replicas=20,
            samples=samples,
            baseline_rps=100.0,
        )

    @pytest.mark.parametrize("load", [0.0, 0.2, 0.6, 0.9, 1.0])
    def test_equal_observations_give_equal_recommendations(self, policy: Policy, load: float) -> None:
        seen = self.see(4, cpu=Sample(value=load), memory=Sample(value=load), rps=Sample(value=400 * load))
        assert policy.decide(seen) == policy.decide(Observation.from_dict(seen.to_dict()))

    @pytest.mark.parametrize(
        "broken",
        [Sample(error="down"), Sample(value=float("nan")), Sample(value=0.0, age_s=1e6), Sample(value=-1.0)],
    )
    def test_a_blind_policy_never_wants_fewer(self, policy: Policy, broken: Sample) -> None:
        seen = self.see(4, cpu=broken, memory=broken, rps=broken, backlog=broken)
        wanted = policy.decide(seen)
        assert wanted.replicas >= 4
        assert wanted.blind

    def test_it_wants_whole_replicas_and_says_why(self, policy: Policy) -> None:
        for replicas in (0, 1, 3, 5, 7):
            seen = self.see(replicas, cpu=Sample(value=0.1), memory=Sample(value=0.1), rps=Sample(value=1.0))
            wanted = policy.decide(seen)
            assert type(wanted.replicas) is int
            assert wanted.replicas >= 0
            assert wanted.reason
