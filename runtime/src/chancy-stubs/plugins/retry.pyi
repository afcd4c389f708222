from datetime import datetime
from typing import Any

from chancy.job import QueuedJob
from chancy.plugin import Plugin

class RetryPlugin(Plugin):
    @staticmethod
    def get_identifier() -> str: ...
    @staticmethod
    def calculate_next_run(
        job: QueuedJob, retry_settings: dict[str, Any]
    ) -> datetime: ...
