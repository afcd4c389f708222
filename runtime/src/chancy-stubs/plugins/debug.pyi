from chancy.plugin import Plugin

class DebugPlugin(Plugin):
    event_counts: dict[str, int]
    def get_event_count(self, event_name: str) -> int: ...
    @staticmethod
    def get_identifier() -> str: ...
