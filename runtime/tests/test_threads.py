"""The threads that run the jobs of a thread queue."""

import gc
import threading
import weakref

import pytest
from chancy_runtime.execution.threads import Threads


def fail(_job: object) -> None:
    raise ValueError("not today")


class Job:
    """Something that a call gets."""


def test_a_failed_call_keeps_nothing_alive_but_its_error() -> None:
    threads = Threads(1)
    job = Job()
    gone = weakref.ref(job)
    gc.disable()  # A garbage collection would end a cycle and hide it.
    try:
        error = threads.submit(fail, job).exception(60)
        threads.shutdown()
        assert isinstance(error, ValueError)
        del job, error
        assert gone() is None
    finally:
        gc.enable()


def test_a_thread_that_cannot_start_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit on threads or processes of a container is reached, for a moment."""
    threads = Threads(1)
    calls: list[str] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    # Python has no other way to refuse a thread to this code alone.
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            threads.submit(calls.append, "refused")

    threads.submit(calls.append, "later").result(60)
    threads.shutdown()
    assert calls == ["later"]


def test_a_stop_cancels_the_calls_that_wait_and_runs_the_others_to_their_end() -> None:
    threads = Threads(2)
    go = threading.Event()
    began = threading.Semaphore(0)

    def wait() -> bool:
        began.release()
        return go.wait(60)

    running = [threads.submit(wait) for _ in range(2)]
    waiting = threads.submit(wait)
    for _ in running:
        assert began.acquire(timeout=60)
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()

    assert [each.result(60) for each in running] == [True, True]
    assert waiting.cancelled()
    threads.shutdown()
