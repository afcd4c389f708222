"""Runs the program of this folder: python -IB tasks/wire_lifespan FILE --service NAME."""

import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from wire_lifespan.program import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
