import os
import warnings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", category=DeprecationWarning)

from contextlib import asynccontextmanager  # noqa: E402

from fastapi import FastAPI  # noqa: E402


@asynccontextmanager
async def lifespan(app: FastAPI):
    record(os.environ["TOKENIZERS_PARALLELISM"])
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
