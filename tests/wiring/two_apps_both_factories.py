from fastapi import FastAPI


def create_app() -> FastAPI:
    app = FastAPI(title="Billing")
    return app


def create_test_app() -> FastAPI:
    test_app = FastAPI(title="Billing under test")
    return test_app
