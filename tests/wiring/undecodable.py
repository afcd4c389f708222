from fastapi import FastAPI

# Rechnungen féÿr alle
app = FastAPI()
