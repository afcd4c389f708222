"""Tests of the template's promises, on rendered services."""
