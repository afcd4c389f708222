"""Hides the arguments of jobs, and everything that could repeat them."""

import copy
import json
import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

HideArguments: TypeAlias = Callable[[str, dict[str, Any]], dict[str, Any]]

HIDDEN = "[hidden]"
# The shown fields of job definitions and of pushed jobs; all others are left out.
_FIELDS = (
    *("func", "queue", "priority", "max_attempts", "scheduled_at", "limits"),
    *("unique_key", "id", "state", "attempts", "taken_by", "claim_id", "created_at"),
    *("started_at", "completed_at"),
)
_START = "Traceback (most recent call last):"
_BETWEEN = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Hiding:
    """Removes from jobs what the team does not show.

    Args:
        hide_arguments: Gets the function of a job and a copy of its arguments, and returns
            the arguments to show. None hides the value of each argument.
        log: Returns the log in which a failure of hide_arguments is reported, once for each
            function.
    """

    def __init__(
        self, hide_arguments: HideArguments | None, log: Callable[[], logging.Logger]
    ) -> None:
        self._hide_arguments = hide_arguments or _hide_values
        self._log = log
        self._failed: set[str] = set()

    def job(self, job: Any) -> dict[str, Any]:
        """Returns the fields of a job or of its definition that may be shown.

        The unique key and the messages of errors are shown only if no argument is hidden:
        they may repeat one. Of `meta`, which anybody may write, only the names are shown.
        """
        given = job.get("kwargs") or {}
        shown = self._arguments(str(job["func"]), given)
        fields = {name: job[name] for name in _FIELDS if name in job}
        times = (job.get("scheduled_at"), job.get("created_at"))
        if all(times):
            # By default, scheduled_at is the time at which the module of the job was imported.
            fields["scheduled_at"] = max(times, key=datetime.fromisoformat)
        fields["kwargs"] = shown
        fields["meta"] = _hide_values("", _dictionary(job.get("meta")))
        all_is_shown = shown == given
        if not all_is_shown and fields.get("unique_key") is not None:
            fields["unique_key"] = HIDDEN
        if "errors" in job:
            fields["errors"] = [
                {
                    "attempt": each.get("attempt"),
                    "traceback": str(each.get("traceback"))
                    if all_is_shown
                    else without_messages(str(each.get("traceback"))),
                }
                for each in job["errors"] or []
                if isinstance(each, dict)
            ]
        return fields

    def _arguments(self, function: str, given: Any) -> dict[str, Any]:
        arguments = _dictionary(given)
        try:
            shown = self._hide_arguments(function, copy.deepcopy(arguments))
            json.dumps(shown)
            if isinstance(shown, dict):
                return shown
            reason = f"returned a {type(shown).__name__}, not a dict"
        except Exception as error:  # noqa: BLE001  # whatever a team's function raises
            # Without the text of the error, which may repeat an argument.
            reason = f"failed with {type(error).__name__}"
        if function not in self._failed:
            self._failed.add(function)
            self._log().error(
                "dashboard: hide_arguments %s for %s, so each of its arguments is hidden",
                *(reason, function),
            )
        return _hide_values(function, arguments)


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hide_values(_function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(arguments, HIDDEN)


def without_messages(traceback: str) -> str:
    """Returns the frames and the types of a traceback, without the texts of its errors."""
    lines: list[str] = []
    in_frames = has_source = False
    for line in traceback.splitlines():
        if line.strip() == _START:
            in_frames = True
            lines.append(line)
        elif in_frames and re.match(r'  File ".*", line \d+', line):
            # Source that is not in a file may be an argument that was executed.
            has_source = not line.startswith('  File "<')
            lines.append(line)
        elif in_frames and line.startswith("  "):
            lines += [line] if has_source else []
        elif in_frames:
            in_frames = False
            name = re.match(r"[^\W\d][\w.]*(?=:|$)", line)
            lines.append(f"{name[0]}: {HIDDEN}" if name else HIDDEN)
        elif line in _BETWEEN:
            lines += ["", line, ""]
    return "\n".join(lines) or HIDDEN
