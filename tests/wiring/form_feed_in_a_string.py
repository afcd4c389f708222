from fastapi import FastAPI

app = FastAPI()
PAGE_BREAK = ""
SEPARATORS = "  "  #  in a comment


@app.get("/print")
def pages():
    return f"one{PAGE_BREAK}two" + """
three fourfive
"""
