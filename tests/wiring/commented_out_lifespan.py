from fastapi import FastAPI

# @asynccontextmanager
# async def lifespan(app: FastAPI):
#     record("old")
#     yield

# app = FastAPI(lifespan=lifespan)
app = FastAPI()


@app.on_event("startup")
async def startup():
    record("new")


# if __name__ == "__main__":
#     uvicorn.run(app)
