from contextlib import asynccontextmanager
from fastapi import FastAPI


def create_db_and_tables():
  record("tables")


@asynccontextmanager
async def lifespan(app: FastAPI):
  create_db_and_tables()
  print("db and tables created")
  yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
def index():
  if app.title:
    return {"title": app.title}
  return {}
