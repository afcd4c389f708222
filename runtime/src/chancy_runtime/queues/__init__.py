"""Internal: the rows of the queues, and which deployment may write them."""
