from chancy.app import Chancy
from chancy.plugin import Plugin
from chancy.worker import Worker
from psycopg import AsyncCursor
from psycopg.rows import DictRow

class Recovery(Plugin):
    poll_interval: int
    def __init__(self, *, poll_interval: int = 60) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    @classmethod
    async def recover(
        cls, worker: Worker, chancy: Chancy, cursor: AsyncCursor[DictRow]
    ) -> int: ...
