"""The table of who is logged in to the dashboard."""

from chancy.plugin import Plugin


class DashboardSessions(Plugin):
    """The sessions of `password_login`, in a table that `migrate` makes.

    A session is known to every replica, and a log-out ends it on every replica. The table
    holds hashes only: whoever reads it cannot log in, and whoever writes it cannot either,
    since a hash needs the password.
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
