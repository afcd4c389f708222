from fastapi import FastAPI


def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
