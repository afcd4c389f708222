"""Internal: the rows of the jobs: pushes, claims, results, and changes by hand."""
