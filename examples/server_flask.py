"""A server in Flask. ``unbroken users add ada`` makes a user; ``flask --app examples.server_flask run`` serves."""

import os

from flask import Flask

from unbroken.flask import Auth, current_claims
from unbroken.server import Accounts, Sessions, open_store

store = open_store(os.environ.get("UNBROKEN_STORE", "sqlite:///unbroken.db"))
auth = Auth(Sessions(store), Accounts(store).authenticate)
app = Flask(__name__)
auth.init_app(app)


@app.get("/orders")
@auth.required
def orders() -> dict[str, str]:
    return {"orders of": current_claims.subject}
