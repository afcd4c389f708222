"""Internal: the commands of a service, one module for each group of commands."""
