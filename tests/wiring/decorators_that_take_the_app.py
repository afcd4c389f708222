from fastapi import FastAPI

app = FastAPI()


def controller(cls):
    instance = cls()
    app.add_api_route("/" + cls.__name__.lower(), instance.index)
    return cls


@controller
class Invoices:
    @property
    def app(self) -> str:
        return "not the app"

    async def index(self) -> dict[str, str]:
        return {"app": self.app}


@controller
class Payments:
    async def index(self) -> dict[str, int]:
        return {"open": 0}
