from fastapi import FastAPI
import uvicorn
import store

app = FastAPI()

@app.on_event("startup")
async def startup_event():
    record("seed")
    store.ITEMS.extend(["a", "b"])

@app.get("/items")
async def items():
    return store.ITEMS

@app.on_event("shutdown")
def shutdown_event():
    record("drop")
    store.ITEMS.clear()

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8000)
