import argparse

import uvicorn
from fastapi import APIRouter, FastAPI

router = APIRouter()


@router.get("/convert")
def convert(amount: float, rate: float = 1.1):
    return {"amount": amount * rate}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args([])
    app = FastAPI()
    app.include_router(router)
    uvicorn.run(app, port=args.port)
