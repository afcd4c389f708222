from chancy import job


@job(queue="default")
def sync_orders(*, note: str = "plain") -> None:
    print("sync_orders", note)
