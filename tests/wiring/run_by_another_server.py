from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index():
    return {}


def serve() -> None:
    import hypercorn.asyncio
    from hypercorn.config import Config

    config = Config()
    config.bind = ["0.0.0.0:8000"]
    import asyncio

    asyncio.run(hypercorn.asyncio.serve(app, config))


if __name__ == "__main__":
    serve()
