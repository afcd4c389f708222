from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from .core import settings


def get_application() -> FastAPI:
    application = FastAPI(**settings.fastapi_kwargs)
    application.add_middleware(
        TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts
    )
    return application


app = get_application()
