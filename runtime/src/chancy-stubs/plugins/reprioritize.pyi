from chancy.app import Chancy
from chancy.plugin import Plugin
from chancy.rule import JobRules, SQLAble

class Reprioritize(Plugin):
    Rules = JobRules
    rule: SQLAble
    check_interval: int
    priority_increase: int
    batch_size: int
    def __init__(
        self,
        rule: SQLAble,
        *,
        check_interval: int = 300,
        priority_increase: int = 1,
        batch_size: int = 1000,
    ) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    async def reprioritize_jobs(self, chancy: Chancy) -> int: ...
