"""The commands of the workers: python -m <this package> migrate | status."""

from chancy_runtime.cli import main

from .chancy_initialization import create_chancy

if __name__ == "__main__":
    main(create_chancy, __package__)
