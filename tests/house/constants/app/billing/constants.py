"""Names that many files of the service use."""

from enum import StrEnum

SERVICE = "billing"


class Queues(StrEnum):
    DEFAULT = "default"
    REPORTS = "reports"
