import fastapi
import fastapi.responses

api = fastapi.FastAPI(title="Billing")
router = fastapi.APIRouter()


@router.get("/", response_class=fastapi.responses.PlainTextResponse)
def index() -> str:
    return "billing"


@router.get("/invoices/{number}")
def invoice(number: int = fastapi.Path(ge=1)) -> dict[str, int]:
    return {"number": number}


api.include_router(router)
# The process manager asks for `app`.
app = api
