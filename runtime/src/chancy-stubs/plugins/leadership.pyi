from chancy.plugin import Plugin

class Leadership(Plugin):
    poll_interval: int
    timeout: int
    def __init__(self, poll_interval: int = 60, timeout: int = 120) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...

class ImmediateLeadership(Plugin):
    @staticmethod
    def get_identifier() -> str: ...
