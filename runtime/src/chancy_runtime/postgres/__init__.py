"""Internal: the database: its connections, its pooler and Chancy's tables."""
