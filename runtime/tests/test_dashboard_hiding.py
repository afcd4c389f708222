"""The dashboard shows only the arguments that the team shows, and nothing that may repeat others."""

import asyncio
import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime.dashboard.hiding import HIDDEN, Hiding, without_messages
from dashboard_service import SECRET, Site, greet

pytestmark = pytest.mark.xdist_group("dashboard")

TRACEBACK = f"""Traceback (most recent call last):
  File "/app/greet.py", line 12, in greet
    send(name)
  File "<string>", line 1
    {SECRET}
    ^^^^^^^
ValueError: not a name: {SECRET}
and another line of {SECRET}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/greet.py", line 14, in greet
    raise GreetingError(name) from None
app.greet.GreetingError: {SECRET}
"""


def test_no_answer_repeats_a_hidden_argument(site: Site) -> None:
    errors = json.dumps([{"attempt": 1, "traceback": TRACEBACK}])
    id = site.job(state="failed", errors=errors, unique_key=SECRET)

    async def push() -> str:
        async with site.billing.create() as chancy:
            step = greet.job.with_kwargs(name=SECRET, times=3).with_queue("kept")
            workflow = Workflow("greetings").add("first", step)
            return str(await WorkflowPlugin.push(chancy, workflow))

    workflow = asyncio.run(push())
    answers = {
        path: site("GET", f"/api/v1/{path}", "ada")
        for path in (
            *("jobs", "jobs?pagination=true", f"jobs/{id}", "crons"),
            *("workflows", f"workflows/{workflow}", "queues", "workers"),
        )
    }
    for path, answer in answers.items():
        assert answer.status_code == 200, path
        assert SECRET not in answer.text, path
        assert "secret of the cron" not in answer.text, path
    job = answers[f"jobs/{id}"].json()
    assert job["kwargs"] == {"name": "of greet", "times": 3}
    assert job["meta"] == {"trace": HIDDEN}
    assert job["unique_key"] == HIDDEN
    (error,) = job["errors"]
    assert 'File "/app/greet.py", line 12, in greet' in error["traceback"]
    (cron,) = answers["crons"].json()
    assert (cron["unique_key"], cron["job"]["kwargs"]["times"]) == ("greet", 7)
    step = answers[f"workflows/{workflow}"].json()["steps"]["first"]
    assert step["job"]["kwargs"] == {"name": "of greet", "times": 3}
    assert answers["jobs?pagination=true"].json()["items"][0]["func"] == greet.job.func


def test_a_job_without_hidden_arguments_is_shown_completely(site: Site) -> None:
    errors = [{"attempt": 1, "traceback": TRACEBACK}]
    id = site.job(
        state="failed",
        kwargs=json.dumps({"times": 3}),
        errors=json.dumps(errors),
        unique_key="key",
    )
    job = site("GET", f"/api/v1/jobs/{id}", "vera").json()
    assert (job["kwargs"], job["errors"], job["unique_key"]) == (
        *({"times": 3}, errors, "key"),
    )


def test_a_job_does_not_look_as_if_it_had_waited_since_the_start(site: Site) -> None:
    async def push() -> list[str]:
        async with site.billing.create() as chancy:
            at_once = greet.job.with_kwargs(name="", times=3).with_queue("kept")
            later = at_once.with_scheduled_at(datetime(2999, 1, 1, tzinfo=UTC))
            return [
                str((await chancy.push(job)).identifier) for job in (at_once, later)
            ]

    at_once, later = (
        site("GET", f"/api/v1/jobs/{id}", "ada").json() for id in asyncio.run(push())
    )
    assert at_once["scheduled_at"] == at_once["created_at"]
    assert later["scheduled_at"].startswith("2999-01-01")


def test_a_traceback_without_messages_has_its_frames_and_its_types() -> None:
    assert without_messages(TRACEBACK).splitlines() == [
        "Traceback (most recent call last):",
        '  File "/app/greet.py", line 12, in greet',
        "    send(name)",
        '  File "<string>", line 1',
        f"ValueError: {HIDDEN}",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "/app/greet.py", line 14, in greet',
        "    raise GreetingError(name) from None",
        f"app.greet.GreetingError: {HIDDEN}",
    ]


def raised(error: BaseException) -> str:
    try:
        raise error
    except BaseException:  # noqa: BLE001  # as in a job
        return traceback.format_exc()


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"cancelled by {SECRET}",
        raised(KeyError(SECRET)),
        raised(ValueError(f"\n  File {SECRET}\n    {SECRET}")),
        raised(ExceptionGroup(SECRET, [ValueError(SECRET), ValueError(SECRET)])),
        raised(SyntaxError(SECRET, ("<string>", 1, 1, SECRET))),
        raised(type(f"Odd {SECRET}", (Exception,), {})("x")),
    ],
)
def test_no_message_of_an_error_is_left(text: str) -> None:
    assert SECRET not in without_messages(text)
    assert HIDDEN in without_messages(text)


def hidden(hide_arguments: Any, kwargs: Any) -> dict[str, Any]:
    log = logging.getLogger("app.hiding")
    job = {"func": "app.greet", "kwargs": kwargs, "unique_key": SECRET}
    return Hiding(hide_arguments, lambda: log).job(job)


@pytest.mark.parametrize(
    "hide_arguments",
    [
        None,
        lambda function, arguments: None,
        lambda function, arguments: {"name": object()},
        lambda function, arguments: {}[arguments["name"]],
    ],
)
def test_all_arguments_are_hidden_if_hide_arguments_fails(
    hide_arguments: Any, app_log: pytest.LogCaptureFixture
) -> None:
    job = hidden(hide_arguments, {"name": SECRET})
    assert job["kwargs"] == {"name": HIDDEN}
    assert job["unique_key"] == HIDDEN
    assert SECRET not in app_log.text
    assert len(app_log.records) == (hide_arguments is not None)


@pytest.mark.parametrize("kwargs", [[SECRET], SECRET])
def test_arguments_that_are_not_a_dictionary_are_not_shown(kwargs: Any) -> None:
    assert SECRET not in json.dumps(hidden(lambda _function, given: given, kwargs))
