from fastapi import FastAPI

TITLE = "Billing"
VERSION = "0.1.0"


def _new_app() -> FastAPI:
    """Create an app with shared metadata for runtime and documentation."""
    return FastAPI(
        title=TITLE,
        version=VERSION,
    )
