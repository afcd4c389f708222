"""Helpers that the tests of the library and of the template share."""
