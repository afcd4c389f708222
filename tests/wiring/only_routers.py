from fastapi import APIRouter, HTTPException

router = APIRouter(prefix="/invoices")


@router.get("/{number}")
async def read(number: int):
    if number < 1:
        raise HTTPException(404)
    return {"number": number}
