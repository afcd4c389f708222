# Stubs for Chancy 0.26, which has no py.typed.
# Private names are declared where chancy_runtime uses them, and only those.

from chancy.app import Chancy
from chancy.job import Job, Limit, QueuedJob, Reference, job
from chancy.queue import Queue
from chancy.worker import Worker

__all__ = (
    "Chancy",
    "Job",
    "Limit",
    "Queue",
    "QueuedJob",
    "Reference",
    "Worker",
    "job",
)
