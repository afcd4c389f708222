"""Brings what a job set in Sentry's scope from its child process to its failure.

The process that started the child reports the failure, and the scope stays in the child.
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
    """Runs its block, a job in a child, in a scope whose data goes with the job's error."""
    import sentry_sdk

    with sentry_sdk.isolation_scope() as scope:
        try:
            yield
        except BaseException as error:
            vars(error)[_DATA] = _data_of(scope)
            ForkingPickler.register(type(error), _packed)
            raise


def _data_of(scope: Any) -> dict[str, Any]:
    """Returns what a scope adds to an event, as JSON can have it."""
    from sentry_sdk.serializer import serialize

    event: dict[str, Any] = {}
    scope.apply_to_event(event, {})
    # The trace is that of the process that reports.
    event.get("contexts", {}).pop("trace", None)
    return serialize(event)


def _packed(
    error: BaseException,
) -> tuple[Callable[..., BaseException], tuple[bytes, object]]:
    """Some errors, such as SQLAlchemy's, leave attributes out where they are pickled."""
    return _unpacked, (pickle.dumps(error), vars(error).get(_DATA))


def _unpacked(pickled: bytes, data: object) -> BaseException:
    error: BaseException = pickle.loads(pickled)
    vars(error)[_DATA] = data
    return error


def bring_back(error: BaseException, scope: Any) -> None:
    """Sets in a job's scope what came with the job's error from its child."""
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
