"""Internal: the rows of the jobs: taking them, giving them back, saving results."""
