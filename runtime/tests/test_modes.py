"""One variable sets whether a process runs the workers, only pushes, or neither."""

from collections.abc import Iterator

import pytest
from chancy_runtime import WorkersError
from chancy_runtime.modes import Mode, Process, become, this_process, workers_mode


@pytest.fixture(autouse=True)
def same_process_afterwards() -> Iterator[None]:
    before = this_process()
    yield
    become(before)


@pytest.mark.parametrize(
    ("value", "chosen", "mode"),
    [
        (None, "run", Mode.RUN),
        ("", "push", Mode.PUSH),
        ("run", "push", Mode.RUN),
        ("push", "run", Mode.PUSH),
        ("off", "push", Mode.OFF),
    ],
)
def test_the_variable_comes_before_the_choice_of_the_service(
    monkeypatch: pytest.MonkeyPatch, value: str | None, chosen: str, mode: Mode
) -> None:
    monkeypatch.delenv("WORKERS_MODE", raising=False)
    if value is not None:
        monkeypatch.setenv("WORKERS_MODE", value)

    assert workers_mode(chosen) is mode


@pytest.mark.parametrize("value", ["RUN", "none", "0", " run"])
def test_another_value_is_named_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WORKERS_MODE", value)

    with pytest.raises(WorkersError) as error:
        workers_mode()

    assert str(error.value) == (
        f"WORKERS_MODE is {value!r}, which is not a mode: set it to run, push or off, "
        "or unset it for the service's own mode"
    )


@pytest.mark.parametrize("kind", ["own", "any"])
def test_a_process_of_the_workers_runs_them_whatever_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("WORKERS_MODE", "off")
    become(Process(kind=kind))

    assert workers_mode("push") is Mode.RUN


@pytest.mark.parametrize(
    ("here", "light", "heavy", "each"),
    [
        (Process(), True, False, True),
        (Process(kind="own"), False, True, True),
        (Process(kind="any"), True, True, True),
        (Process(kind="own", tags=frozenset({"light"})), True, False, False),
        (Process(kind="own", tags=frozenset({"light", "heavy"})), True, True, False),
    ],
)
def test_a_worker_runs_in_the_processes_that_it_is_for(
    here: Process, light: bool, heavy: bool, each: bool
) -> None:
    assert here.runs(process="api", tags={"light"}) is light
    assert here.runs(process="own", tags={"heavy"}) is heavy
    assert here.runs(process=None, tags=set()) is each
