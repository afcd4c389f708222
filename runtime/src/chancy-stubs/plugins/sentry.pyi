from chancy.plugin import Plugin

class SentryPlugin(Plugin):
    @staticmethod
    def get_identifier() -> str: ...
