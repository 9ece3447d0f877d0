"""Jobs as arq stores them: blobs of jobs and results, to and from this package's records. No I/O.

A job of one value ``data`` is a call ``function(ctx, data)`` to arq. What arq has no place for (tries,
time-out, version, headers of this one job) lies in the blob under ``"ep"``, which arq itself skips.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventperf._core.objects import read_json
from eventperf.queues.codec import Codec
from eventperf.queues.errors import PayloadError
from eventperf.queues.job import JobInfo, JobRecord, JobState
from eventperf.queues.jobtype import JobType
from eventperf.queues.options import DEFAULT_PRIORITY

SERIALIZERS: Final = ("json", "pickle")

_MARK: Final = "__eventperf__"
_CANCELLED: Final = "CancelledError"


def dumps(data: dict[str, Any]) -> bytes:
    """Serialize for arq (``job_serializer``) as JSON; exceptions become their text, bytes base64."""
    return json.dumps(data, default=_marked, separators=(",", ":")).encode()


def _marked(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {_MARK: "error", "type": type(value).__name__, "text": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_MARK: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def loads(blob: bytes) -> dict[str, Any]:
    """Read back what :func:`dumps` wrote; errors of jobs stay descriptions of them."""
    found: dict[str, Any] = read_json(blob, object_hook=_unmarked)
    return found


def _unmarked(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.get(_MARK) == "bytes" else found


def as_call(data: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that ``data`` stands for: itself, or those of ``{"args": ..., "kwargs": ...}``."""
    if isinstance(data, dict) and data.keys() == {"args", "kwargs"}:
        return list(data["args"]), dict(data["kwargs"])
    return [data], {}


def as_data(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the data that a call of arq's carries; the reverse of :func:`as_call`."""
    if len(args) == 1 and not kwargs:
        return args[0]
    return {"args": list(args), "kwargs": dict(kwargs)} if args or kwargs else None


class ArqWire:
    """Blobs in one serialization.

    Args:
        serializer: ``"json"``, or ``"pickle"``: what arq does when nobody says otherwise. Pickle runs code
            that whoever can write to Redis chooses.
        codec: Of the payloads on this package's side.
    """

    def __init__(self, serializer: str, codec: Codec) -> None:
        self._codec = codec
        self._pickled = serializer == "pickle"

    def dumps(self, data: dict[str, Any]) -> bytes:
        """arq's ``job_serializer``."""
        return pickle.dumps(data) if self._pickled else dumps(data)

    def loads(self, blob: bytes) -> dict[str, Any]:
        """arq's ``job_deserializer``."""
        try:
            found: dict[str, Any] = pickle.loads(blob) if self._pickled else loads(blob)
        except Exception as error:
            allowed = f"what serializer={'pickle' if self._pickled else 'json'} of the URL reads ({error})"
            raise PayloadError("payload", f"{len(blob)} bytes in arq's queue", allowed) from error
        return found

    # -- jobs --------------------------------------------------------------------------------------

    def job(self, record: JobRecord, enqueued_ms: int) -> bytes:
        """Return the blob of a job."""
        args, kwargs = as_call(self._codec.decode(record.payload))
        extras = {
            "n": record.attempts,
            "t": record.timeout_s,
            "v": record.version,
            "h": record.headers,
            "p": record.priority,
        }
        data = {"t": None, "f": record.type, "a": args, "k": kwargs, "et": enqueued_ms, "ep": extras}
        try:
            return self.dumps(data)
        except Exception as error:
            raise PayloadError("data", record.type, f"data that arq's serializer takes ({error})") from error

    def record(
        self, ctx: Mapping[str, Any], kind: JobType, queue: str, call: Any, extras: Mapping[str, Any]
    ) -> JobRecord:
        """Return the record of a job that arq runs: its context, its arguments, what the blob had besides."""
        return JobRecord(
            id=ctx["job_id"],
            type=kind.name,
            queue=queue,
            priority=extras.get("p", DEFAULT_PRIORITY),
            payload=self._codec.encode(as_data(*call)),
            attempts=extras.get("n", kind.attempts),
            timeout_s=extras.get("t"),
            version=extras.get("v", kind.version),
            headers=extras.get("h"),
            created_at=ctx["enqueue_time"].timestamp(),
        )

    # -- results -----------------------------------------------------------------------------------

    def cancelled(self, blob: bytes, job_id: str, queue_key: str, now_ms: int) -> bytes:
        """Return the result blob of a job that was cancelled before it started."""
        job = self.loads(blob)
        return self.dumps({
            "t": 0, "f": job["f"], "a": job["a"], "k": job["k"], "et": job["et"], "s": False,
            "r": asyncio.CancelledError(), "st": now_ms, "ft": now_ms, "q": queue_key, "id": job_id,
        })  # fmt: skip

    def ended(self, blob: bytes, job_id: str, queues: Mapping[str, str]) -> JobInfo:
        """Return what a result blob tells; ``queues`` maps arq's names to ours."""
        found = self.loads(blob)
        state, error = JobState.COMPLETED, None
        if not found["s"]:
            kind, error = error_of(found["r"])
            state = JobState.CANCELLED if kind == _CANCELLED else JobState.FAILED
        return JobInfo(
            id=job_id,
            type=found["f"],
            queue=queues.get(found.get("q", ""), found.get("q", "")),
            state=state,
            attempt=found["t"] or 0,
            created_at=found["et"] / 1000,
            started_at=found["st"] / 1000,
            finished_at=found["ft"] / 1000,
            error=error,
            result=self._codec.encode(found["r"]) if state is JobState.COMPLETED else None,
            payload=self._codec.encode(as_data(found["a"], found["k"])),
        )

    def standing(
        self, blob: bytes | None, job_id: str, queue: str, state: JobState, tries: int, due_ms: float
    ) -> JobInfo:
        """Return what is known of a job that has not ended; its blob is gone when its deadline has passed."""
        found: dict[str, Any] = (
            {"f": "unknown", "a": (), "k": {}, "et": 0} if blob is None else self.loads(blob)
        )
        extras = found.get("ep") or {}
        return JobInfo(
            id=job_id,
            type=found["f"],
            queue=queue,
            state=state,
            priority=extras.get("p", DEFAULT_PRIORITY),
            attempt=tries,
            created_at=found["et"] / 1000,
            due_at=due_ms / 1000 if state is JobState.DELAYED else None,
            payload=self._codec.encode(as_data(found["a"], found["k"])),
            headers=extras.get("h") or {},
        )


def error_of(error: Any) -> tuple[str, str]:
    """Return kind and text of the error in a result."""
    if isinstance(error, BaseException):
        kind, text = type(error).__name__, str(error)
    elif isinstance(error, dict) and error.get(_MARK) == "error":
        kind, text = str(error["type"]), str(error["text"])
    else:
        kind, text = "JobExecutionFailed", str(error)
    return kind, text if kind == "JobExecutionFailed" else f"{kind}: {text}"
