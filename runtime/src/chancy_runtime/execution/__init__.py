"""Internal: runs claimed jobs: feeder, executors, hooks, child processes."""
