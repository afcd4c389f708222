from chancy import job


@job(queue="partner-api")
async def call_partner(*, note: str = "plain") -> None:
    print("call_partner", note)
