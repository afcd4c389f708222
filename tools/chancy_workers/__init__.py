"""The console program `chancy-workers`, which manages rendered services."""
