# fmt: off
from contextlib import asynccontextmanager
from fastapi    import FastAPI

LIMITS = {
    'basic' :   10,
    'pro'   : 1000,
}

@asynccontextmanager
async def lifespan( app : FastAPI ) :
    record( 'up'   )
    try     :
            yield   LIMITS
    finally :
            record( 'down' )

app = FastAPI( lifespan = lifespan )
# fmt: on
