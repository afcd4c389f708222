from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
   record("up")
   if app.title:
         try:
          yield
         finally:
            record("down")


app = FastAPI(lifespan=lifespan)
