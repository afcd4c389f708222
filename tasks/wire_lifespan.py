"""Wires the workers into the FastAPI app of a service."""
