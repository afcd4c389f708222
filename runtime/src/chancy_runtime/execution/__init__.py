"""Internal: from a claimed job to its result: feeder, executors, hooks, children."""
