"""Chancy for services that have to keep running."""
