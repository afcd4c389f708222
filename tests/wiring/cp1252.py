# vim: set fileencoding=cp1252 :
from fastapi import FastAPI

app = FastAPI(title="Preise in €")


@app.get("/preise")
def preise():
    return {"basis": "10 €", "groß": "25 €"}
