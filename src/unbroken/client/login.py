"""The conversation of a login: name and password, then a code where the server wants one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unbroken.client.challenge import Reply
from unbroken.client.dialect import Call, Dialect, MoreWanted
from unbroken.client.wire import Lost, Unsent
from unbroken.errors import LoginRefused, TryLater
from unbroken.tokens import Granted

__all__ = ["SecondStep", "granted_by_login"]

SecondStep = Callable[[str, str], str]  # the code, for its kind and the hint that the server gives


def granted_by_login(
    dialect: Dialect,
    ask: Callable[[Call], Reply],
    username: str,
    password: str,
    second_step: SecondStep | None,
    extra: Mapping[str, object],
) -> Granted:
    """The tokens that the server gives; *ask* sends one request. Raises what ``Session.login`` says."""

    def answer(call: Call) -> Granted | MoreWanted:
        try:
            return dialect.read_login(ask(call))
        except (Unsent, Lost) as error:
            raise TryLater(f"the login failed: {error}") from error

    found = answer(dialect.login_call(username, password, extra))
    while isinstance(found, MoreWanted):
        if second_step is None:
            raise LoginRefused("the server wants a code too: give login a second_step", reason="mfa_required")
        call = dialect.step_call(found, second_step(found.kind, found.hint))
        try:
            found = answer(call)
        except LoginRefused as error:
            raise LoginRefused("the login was refused: wrong code", reason=error.reason) from error
    return found
