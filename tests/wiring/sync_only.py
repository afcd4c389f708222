import sqlite3
from contextlib import closing

from fastapi import FastAPI

DATABASE = ":memory:"
connection = sqlite3.connect(DATABASE, check_same_thread=False)
record("connected")

app = FastAPI()


@app.get("/count")
def count() -> int:
    with closing(connection.cursor()) as cursor:
        (number,) = cursor.execute("SELECT 1").fetchone()
    return number
