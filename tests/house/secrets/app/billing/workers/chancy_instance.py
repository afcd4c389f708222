from chancy import Chancy

chancy_instance: Chancy | None = None


def set_chancy_instance(instance: Chancy) -> None:
    global chancy_instance
    chancy_instance = instance


def get_chancy_instance() -> Chancy:
    if chancy_instance is None:
        raise RuntimeError("no chancy")
    return chancy_instance
