from chancy import job


@job()
def mail() -> None:
    print("the queue default is Chancy's own, with processes")
