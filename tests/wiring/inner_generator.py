from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    def numbers():
        n = 0
        while True:
            n += 1
            yield n

    counter = numbers()
    app.state.next_number = lambda: next(counter)
    record(f"number {next(counter)}")
    yield
    counter.close()
    record("counter closed")


app = FastAPI(lifespan=lifespan)
