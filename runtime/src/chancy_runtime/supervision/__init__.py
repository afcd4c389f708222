"""Internal: tasks that are watched and started again, and what they report."""
