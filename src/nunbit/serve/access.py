"""Who may do what, and how often."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from nunbit.serve.keys import Caller, KeyFile, Scope
from nunbit.serve.problems import Problem
from nunbit.serve.settings import Limits

COOKIE = "nunbit_key"
_CALLERS = 10_000
_HINT = "send Authorization: Bearer KEY; `nunbit keys add NAME` makes one"


class Access:
    """Keys, and the rate of each caller.

    Args:
        keys: With a file of keys, every caller needs one.
        limits: ``rate`` and ``burst``.
        open_to_all: Whether callers without a key may do everything as long as there is no file of keys.
        clock: Seconds, for tests.
    """

    def __init__(
        self, keys: KeyFile, limits: Limits, *, open_to_all: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._open_to_all = open_to_all
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def keys_needed(self) -> bool:
        """Whether callers need a key."""
        return self._keys.exists or not self._open_to_all

    def caller(self, authorization: str, cookie: str, address: str) -> Caller:
        """Who a request is from.

        Args:
            authorization: The header, empty when absent.
            cookie: The key in the cookie, empty when absent.
            address: Of the client.

        Raises:
            Problem: 401 without a valid key where one is needed.
        """
        if not self.keys_needed:
            return Caller(address, Scope.ADMIN)
        scheme, _, given = authorization.partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else cookie
        if not key:
            self.spend(address)
            raise _unauthorized("no_key", "an API key is needed")
        found = self._keys.find(key)
        if found is None:
            self.spend(address)  # guessing counts, too
            raise _unauthorized("wrong_key", "the API key is not valid")
        return found

    def spend(self, caller: str) -> None:
        """Count a request.

        Raises:
            Problem: 429, there were too many.
        """
        if self._limits.rate <= 0:
            return
        now = self._clock()
        tokens, since = self._tokens.pop(caller, (float(self._limits.burst), now))
        tokens = min(float(self._limits.burst), tokens + (now - since) * self._limits.rate)
        self._tokens[caller] = (max(tokens - 1, 0.0), now)
        if len(self._tokens) > _CALLERS:
            self._tokens.popitem(last=False)
        if tokens < 1:
            wait = max(1, round((1 - tokens) / self._limits.rate))
            message = f"more than {self._limits.rate:g} requests a second"
            raise Problem(429, "rate_limit", message, "slow down", headers={"Retry-After": str(wait)})


def check_scope(caller: Caller, needed: Scope) -> None:
    """Refuse what a caller may not do.

    Raises:
        Problem: 403.
    """
    if caller.scope < needed:
        message = f"this needs a key of scope {needed.name.lower()}, yours has {caller.scope.name.lower()}"
        raise Problem(403, "not_allowed", message, "ask the server's owner for another key")


def _unauthorized(code: str, message: str) -> Problem:
    return Problem(401, code, message, _HINT, headers={"WWW-Authenticate": "Bearer"})
