import os; import sys; from fastapi import FastAPI, APIRouter

router = APIRouter(); app = FastAPI(title="billing"); app.include_router(router)


@app.get("/")
def index(): return {"pid": os.getpid(), "python": sys.version_info[0]}
