"""Tests of the workers, on a real PostgreSQL."""
