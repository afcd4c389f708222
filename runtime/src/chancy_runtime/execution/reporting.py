"""Sends a job's Sentry data (user, tags, breadcrumbs, …) from its child process to the parent.

The parent reports the failure, but the job's scope is in the child.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

# The attribute of an error that has the scope's data.
_DATA = "_sentry_data_of_its_job"


@contextmanager
def reported_elsewhere() -> Iterator[None]:
    """Runs a job in a child, in a Sentry scope whose data is sent with the job's error."""
    import sentry_sdk

    with sentry_sdk.isolation_scope() as scope:
        try:
            yield
        except BaseException as error:
            vars(error)[_DATA] = _data_of(scope)
            ForkingPickler.register(type(error), _packed)
            raise


def _data_of(scope: Any) -> dict[str, Any]:
    """Returns the data that a scope adds to an event, as values of JSON."""
    from sentry_sdk.serializer import serialize

    event: dict[str, Any] = {}
    scope.apply_to_event(event, {})
    # The trace is that of the process that reports.
    event.get("contexts", {}).pop("trace", None)
    return serialize(event)


def _packed(
    error: BaseException,
) -> tuple[Callable[..., BaseException], tuple[bytes, object]]:
    """Sends the data beside the error: some errors are pickled without their attributes."""
    data = vars(error).pop(_DATA, None)
    return _unpacked, (pickle.dumps(error), data)


def _unpacked(pickled: bytes, data: object) -> BaseException:
    error: BaseException = pickle.loads(pickled)
    vars(error)[_DATA] = data
    return error


def bring_back(error: BaseException, scope: Any) -> None:
    """Sets the data that was sent with a job's error in the job's scope of this process."""
    data = vars(error).pop(_DATA, None)
    if not data or scope is None:
        return
    scope.update_from_kwargs(
        user=data.get("user"),
        level=data.get("level"),
        extras=data.get("extra"),
        contexts=data.get("contexts"),
        tags=data.get("tags"),
        fingerprint=data.get("fingerprint"),
    )
    for crumb in (data.get("breadcrumbs") or {}).get("values") or ():
        scope.add_breadcrumb(crumb)
