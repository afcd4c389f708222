from contextlib import asynccontextmanager

from fastapi import FastAPI

SQL = """
    SELECT 'yield'
    -- async with initialize_workers():
        FROM invoices
"""


@asynccontextmanager
async def lifespan(app: FastAPI):
    query = f"""
    {SQL.strip()!r:>{80}}
    """
    record(f"{len(query) > 10}")
    yield {"sql": SQL, "pattern": r'''
  yield
\t''', "joined": ("a"
      "b")}
    record('''
    down
''')


app = FastAPI(lifespan=lifespan)
