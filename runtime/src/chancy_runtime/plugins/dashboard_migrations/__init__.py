"""The migrations of DashboardSessions."""
