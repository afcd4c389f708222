"""Internal: Chancy's plugins, hardened."""
