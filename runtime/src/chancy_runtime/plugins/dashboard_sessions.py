"""The table of the dashboard's sessions."""

from chancy.plugin import Plugin


class DashboardSessions(Plugin):
    """The sessions of `password_login`, in a table that `migrate` creates.

    Every replica knows a session, and a log-out ends it on every replica. The table has
    hashes only. People who can read or write it cannot log in: a hash needs the password.
    """

    @staticmethod
    def get_identifier() -> str:
        return "chancy_runtime.dashboard_sessions"

    def migrate_key(self) -> str:
        return "chancy_runtime_dashboard"

    def migrate_package(self) -> str:
        return "chancy_runtime.plugins.dashboard_migrations"

    def get_tables(self) -> list[str]:
        return ["dashboard_sessions"]
