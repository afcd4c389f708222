from chancy.app import Chancy
from chancy.plugin import Plugin
from chancy.rule import JobRules, SQLAble
from psycopg import AsyncCursor
from psycopg.rows import DictRow

class Pruner(Plugin):
    Rules = JobRules
    rule: SQLAble
    maximum_to_prune: int
    poll_interval: int
    def __init__(
        self,
        rule: SQLAble | None = None,
        *,
        maximum_to_prune: int = 10000,
        poll_interval: int = 60,
    ) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    async def prune(self, chancy: Chancy, cursor: AsyncCursor[DictRow]) -> int: ...
