"""Internal: what a service's commands do, a module for each group of them."""
