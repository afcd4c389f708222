"""Imports late, so that the command line starts quickly."""


def create_app():
    import logging

    from fastapi import FastAPI

    logging.getLogger(__name__).info("building")
    app = FastAPI(title="billing")

    @app.get("/")
    def index():
        return {}

    return app


def main():
    import uvicorn

    uvicorn.run(create_app, factory=True)


if __name__ == "__main__":
    main()
