"""The services of the backend."""
