from fastapi import FastAPI

try:
    from fast_json_response import FastResponse

    app = FastAPI(default_response_class=FastResponse)
except ImportError:
    app = FastAPI()


@app.get("/")
def index():
    return {}
