"""Internal: restarts the tasks of Workers and reports their problems."""
