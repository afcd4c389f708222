"""The commands of the workers: python -m <this package> --help lists them."""

from chancy_runtime.cli import main

from .chancy_initialization import create_chancy, initialize_workers
from .chancy_instance import get_chancy

if __name__ == "__main__":
    main(
        create_chancy,
        __package__,
        initialize_workers=initialize_workers,
        get_chancy=get_chancy,
        app_module="app.billing.main",
    )
