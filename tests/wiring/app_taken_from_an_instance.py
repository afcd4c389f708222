from fastapi import FastAPI


class OrchestrationAPI:
    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.app = FastAPI(title="Orchestration")
        self._setup_routes()

    def _setup_routes(self) -> None:
        @self.app.get("/")
        async def index() -> dict[str, str]:
            return {"redis": self.redis_url}

    async def initialize(self) -> None:
        record("initialized")

    async def shutdown(self) -> None:
        record("shut down")


def create_api(redis_url: str = "redis://redis:6379") -> OrchestrationAPI:
    return OrchestrationAPI(redis_url)


api_instance = create_api()
app = api_instance.app


@app.on_event("startup")
async def startup_event():
    await api_instance.initialize()


@app.on_event("shutdown")
async def shutdown_event():
    await api_instance.shutdown()
