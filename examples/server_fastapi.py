"""A server in FastAPI. ``unbroken users add ada`` makes a user; ``uvicorn examples.server_fastapi:app`` serves."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from unbroken.fastapi import Auth
from unbroken.server import Accounts, Claims, Sessions, open_store

store = open_store(os.environ.get("UNBROKEN_STORE", "sqlite:///unbroken.db"))
auth = Auth(Sessions(store), Accounts(store).authenticate)
app = FastAPI()
app.include_router(auth.router)


@app.get("/orders")
async def orders(claims: Annotated[Claims, Depends(auth.claims)]) -> dict[str, str]:
    return {"orders of": claims.subject}
