import os

import sentry_sdk
from fastapi import FastAPI
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

sentry_sdk.init(dsn=os.environ.get("SENTRY_DSN"), traces_sample_rate=0.1)

api = FastAPI(title="Billing API")


@api.get("/debug-sentry")
async def trigger_error():
    return 1 / 0


application = SentryAsgiMiddleware(api)
