import uvicorn
from fastapi import FastAPI

app = FastAPI(title="Billing")


@app.get("/")
def index():
    return {}


def main():
    app = FastAPI(title="Maintenance")
    uvicorn.run(app)


if __name__ == "__main__":
    main()
