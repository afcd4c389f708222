import logging
import sys

import uvicorn
from fastapi import FastAPI


def main() -> int:
    logging.basicConfig(level=logging.INFO)
    app = FastAPI(title="billing")

    @app.get("/ready")
    def ready() -> bool:
        return True

    record("configured")
    uvicorn.run(app, host="0.0.0.0", port=8000)
    record("gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
