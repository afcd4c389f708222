"""The answers with which the template renders the hand-written workers."""

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from .carried import NotCarriedOver
from .house_pattern import INITIALIZATION, House, Refusal, Schedule
from .python_files import (
    Bound,
    arguments,
    called,
    evaluate,
    followed,
    imports_in,
    is_plain,
)

LIMITS = ("rate_limit", "rate_limit_window")
_EXECUTORS = {
    "chancy.executors.asyncex.AsyncExecutor": "async",
    "chancy.executors.thread.ThreadedExecutor": "thread",
    "chancy.executors.process.ProcessExecutor": "process",
}
MEMBERS = {"Async": "async", "Threaded": "thread", "Process": "process"}
_ALL_TAGS = {".*"}
_DEFAULT_PLUGINS = ("Leadership", "Pruner", "Recovery", "Metrics", "WorkflowPlugin")


@dataclass
class QueueFacts:
    """A declared queue: the answer for the template, and the arguments kept by hand."""

    name: str
    answer: dict[str, Any]
    by_hand: dict[str, Bound] = field(default_factory=dict)


def queue_facts(house: House) -> list[QueueFacts]:
    """Returns the queues of a house in order, always with `default`.

    Raises:
        NotCarriedOver: A queue's name or arguments are known only at run time.
    """
    worker_tags = [tag for tags in map(tags_of, house.workers) for tag in tags or ()]
    facts: list[QueueFacts] = []
    for call in house.queues:
        given = arguments(call)
        if given is None:
            raise NotCarriedOver(
                f"{call.text}: its arguments cannot be determined statically"
            )
        named = {**given[1], **dict(zip(["name"], given[0], strict=False))}
        name = evaluate(named.pop("name")) if "name" in named else None
        if not isinstance(name, str):
            raise NotCarriedOver(f"{call.text}: its name is known only at run time")
        if name in [each.name for each in facts]:
            raise NotCarriedOver(f"the queue {name} is declared twice")
        facts.append(_queue(name, named, worker_tags))
    if "default" not in [each.name for each in facts]:
        # Chancy's Worker declares it by itself, on a process executor.
        facts.append(QueueFacts("default", {"name": "default", "executor": "process"}))
    return facts


def _queue(name: str, named: dict[str, Bound], worker_tags: list[str]) -> QueueFacts:
    facts = QueueFacts(name, {"name": name, "executor": "process"})
    limits = {key: evaluate(named[key]) for key in LIMITS if key in named}
    for key, bound in named.items():
        value = evaluate(bound)
        match key:
            case "executor":
                kind = _EXECUTORS.get(str(value)) or MEMBERS.get(member_of(bound))
                facts.answer[key] = kind or "async"
                if kind is None:
                    facts.by_hand[key] = bound
            case "concurrency" if type(value) is int:
                facts.answer[key] = value
            case "rate_limit" | "rate_limit_window" if len(limits) == 2 and all(
                type(limit) is int for limit in limits.values()
            ):
                facts.answer[key] = value
            case "tags" if isinstance(value, set | frozenset | list | tuple):
                if set(value) != _ALL_TAGS:
                    if value and all(_is_exact(tag, worker_tags) for tag in value):
                        facts.answer[key] = sorted(value)
                    else:
                        facts.by_hand[key] = bound
            case "concurrency" | "rate_limit" | "rate_limit_window" if value is None:
                pass
            case "eager_polling" if value is True:
                pass
            case _:
                facts.by_hand[key] = bound
    return facts


def member_of(bound: Bound) -> str:
    """The name of the member of Chancy.Executor in an expression, "" for none."""
    match followed(bound).node:
        case ast.Attribute(value=ast.Attribute(attr="Executor"), attr=name):
            return name
    return ""


def _is_exact(tag: Any, worker_tags: list[str]) -> bool:
    """Whether a tag, which is a pattern, matches only workers that have exactly this tag."""
    if not isinstance(tag, str) or tag not in worker_tags:
        return False
    try:
        return [t for t in worker_tags if re.match(tag, t)] == [
            t for t in worker_tags if t == tag
        ]
    except re.error:
        return False


def tags_of(worker: Bound) -> list[str] | None:
    """Returns a Worker's tags, None if they are known only at run time."""
    given = arguments(worker)
    if given is None or "tags" not in given[1]:
        return []
    value = evaluate(given[1]["tags"])
    if value is None:
        return []
    is_known = isinstance(value, set | frozenset | list | tuple) and is_plain(value)
    return sorted(value) if is_known else None


def plugin_names(house: House) -> list[str]:
    """Returns the names of Chancy's plugins, its default plugins included."""
    names = [plugin_name(each) for each in house.plugins]
    if house.has_default_plugins:
        names += [each for each in _DEFAULT_PLUGINS if each not in names]
    return names


def plugin_name(plugin: Bound) -> str:
    path = called(plugin)
    return path.rpartition(".")[2] if path.startswith("chancy.") else ""


def answers_of(house: House, service: str, main: str) -> dict[str, Any]:
    """Returns the answers that render a house, as far as answers can express it.

    Raises:
        NotCarriedOver: A queue's name or arguments are known only at run time.
    """
    queues = queue_facts(house)
    plugins = plugin_names(house)
    return {
        "scope": "service",
        "service": service,
        "package": house.package,
        "main": main,
        "app": "",
        "prefix": house.prefix,
        "get_secret_value": house.get_secret_value,
        "database_secret": house.secret,
        "jobs": _jobs(house, {facts.name for facts in queues}),
        "queues": [facts.answer for facts in queues],
        "workers": [{"tags": tags_of(worker) or []} for worker in house.workers],
        "sentry": "SentryPlugin" in plugins,
        "metrics": "Metrics" in plugins,
        "workflow": "WorkflowPlugin" in plugins,
        "start_without_database": False,
        # Hand-written jobs need no decorator and may be anywhere.
        "only_registered": False,
    }


def _jobs(house: House, queues: set[str]) -> list[dict[str, str]]:
    """The jobs; jobs with a schedule come first, in the order of the schedules."""
    when: dict[str, dict[str, str]] = {}
    for schedule in house.schedules:
        if folder := folder_of(schedule, house):
            when.setdefault(
                folder, {"schedule": schedule.cron, "timezone": schedule.timezone}
            )
    jobs = []
    for folder in sorted(house.jobs, key=lambda each: [*when, *house.jobs].index(each)):
        functions = house.jobs[folder]
        queue = functions[0].queue if functions else None
        known = {"queue": queue} if queue in queues else {}
        jobs.append({"name": folder, **known, **when.get(folder, {})})
    return jobs


def folder_of(schedule: Schedule, house: House) -> str:
    """Returns the folder of a scheduled job; as in the template, its function has its name."""
    paths = imports_in(schedule.job)
    workers = f"{house.package}.workers"
    found = (name for name in house.jobs if f"{workers}.{name}.worker.{name}" in paths)
    return next(found, "")


def demote(answers: dict[str, Any], question: str, reason: str) -> str:
    """Removes the refused part of an answer; returns a note about what stays by hand.

    Raises:
        Refusal: No part of the answer can be left out.
    """
    jobs, queues, workers = answers["jobs"], answers["queues"], answers["workers"]
    fault = re.split(": (?:write|give|add|leave|take) ", reason)[0]
    named_jobs = [job for job in jobs if _names(fault, job["name"])]
    named_queues = [queue for queue in queues if _names(fault, queue["name"])]
    match question:
        case "prefix" if "prefix" in answers:
            del answers["prefix"]
        case "database_secret" if question in answers:
            del answers[question]
        case "jobs" if named_jobs:
            for key in ("schedule", "timezone", "queue"):
                if _names(fault, key) and named_jobs[0].pop(key, None) is not None:
                    if key == "schedule":
                        named_jobs[0].pop("timezone", None)
                    break
            else:
                jobs.remove(named_jobs[0])
        case "queues" if named_queues:
            queue = named_queues[0]
            if len(queue) > 2:
                answers["queues"][queues.index(queue)] = {
                    key: queue[key] for key in ("name", "executor")
                }
            else:
                queues.remove(queue)
        case "queues" if named_jobs and named_jobs[0].pop("queue", None):
            pass
        case "workers" if named_queues and named_queues[0].pop("tags", None):
            pass
        case "workers" if any(worker["tags"] for worker in workers):
            answers["workers"] = [{"tags": []} for _ in workers]
            for queue in queues:
                queue.pop("tags", None)
        case _:
            raise Refusal(f"the template refuses the answer {question}: {reason}")
    return (
        f"{INITIALIZATION}.py keeps a part that the answer {question} cannot express: "
        f"{fault}."
    )


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None
