from chancy import job


@job(queue="reports")
async def build_report(*, size: int = 1) -> None:
    assert size
