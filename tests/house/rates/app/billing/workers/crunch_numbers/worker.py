from chancy import job


@job(queue="crunch")
def crunch_numbers(*, note: str = "plain") -> None:
    print("crunch_numbers", note)
