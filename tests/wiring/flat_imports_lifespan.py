from fastapi import FastAPI, HTTPException, status
from contextlib import asynccontextmanager

from database import create_all
from schemas import Vehicle


@asynccontextmanager
async def lifespan(app: FastAPI):
    create_all()
    yield


app = FastAPI(lifespan=lifespan)

# ROUTES

@app.post("/vehicle/", response_model=Vehicle, status_code=status.HTTP_201_CREATED)
def create_vehicle(vehicle: Vehicle):
    if not vehicle.vin.strip():
        raise HTTPException(status_code=422, detail="no vin")
    return vehicle
