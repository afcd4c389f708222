from fastapi import FastAPI


class Factory:
    @staticmethod
    def create(title: str, **options) -> FastAPI:
        app = FastAPI(title=title, **options)

        @app.get("/title")
        def show_title() -> str:
            return app.title

        return app

    @classmethod
    def default(cls) -> FastAPI:
        return cls.create("Billing")


app = Factory.default()
