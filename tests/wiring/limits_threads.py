import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    anyio.to_thread.current_default_thread_limiter().total_tokens = 80
    with tempfile.TemporaryDirectory(prefix="billing-") as folder:
        app.state.folder = Path(folder)
        record(f"folder there: {app.state.folder.is_dir()}")
        yield
        record(f"folder there: {app.state.folder.is_dir()}")


app = FastAPI(lifespan=lifespan)
