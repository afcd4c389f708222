from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

asgi = CORSMiddleware(FastAPI(title="billing"), allow_origins=["*"])
