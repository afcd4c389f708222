from fastapi import FastAPI

from .tools import tools

tool_app = tools.http_app(path="/")

app = FastAPI(title="Billing tools", lifespan=tool_app.lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


app.mount("/mcp", tool_app)
