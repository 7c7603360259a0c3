# SPDX-License-Identifier: Apache-2.0
"""From the settings to an endpoint to dial: looks names up in a thread of its own, and starts the embedded group.

Nothing here blocks its caller, which is the thread that keeps the lease alive. What a name meant is used once: a name
is looked up anew for each dial, so an address that has moved is never dialed for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from dthreading import embedded, resolve
from dthreading.asking import read_secret
from dthreading.errors import DThreadingError, GroupUnreachable
from dthreading.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.config import Settings
    from dthreading.resolve import Endpoint

__all__ = ["Finder"]


class Finder:
    """The ways to the group.

    Args:
        settings: the servers, or the embedded group, and the secret.
        luck: numbers in [0, 1).
        wake: called from another thread when a look-up has ended.

    """

    def __init__(self, settings: Settings, luck: Callable[[], float], wake: Callable[[], None]) -> None:
        self._settings = settings
        self._wake = wake
        self._starter = embedded.Starter() if settings.embedded else None
        self.route = Route(settings.servers or (embedded.server_name(),), luck)
        self.name = ""
        """The server that was tried last."""
        self._looking_up = ""
        self._found: deque[list[Endpoint] | DThreadingError] = deque()

    def dial_at(self) -> float:
        """When `next` is due; infinite while a name is being looked up, since its end wakes the caller."""
        return float("inf") if self._looking_up and not self._found else self.route.dial_at

    def next(self, now: float) -> tuple[Endpoint, bytes | None] | None:
        """Where to dial now, and the secret for it; None: not known yet.

        Raises:
            GroupUnreachable: the name means nothing.
            NotAuthenticated: there is no secret that could be used.

        """
        if self._looking_up:
            endpoint = self._looked_up()
        else:
            self.name = self.route.next(now)
            endpoint = resolve.numeric(self.name)
            if endpoint is None:
                self._look_up(self.name)
        if endpoint is None:
            return None
        return endpoint, read_secret(self._settings.secret) if endpoint.guarded else None

    def failed(self, now: float) -> None:
        """The server that `next` gave could not be reached, or does not serve.

        Raises:
            GroupUnreachable: the embedded group cannot be started; the sentence says why.

        """
        self.route.failed(self.name, now)
        if self._starter is not None:
            self._starter.ensure(now)
            self.route.dial_at = now + embedded.RETRY_S

    def succeeded(self) -> None:
        """The group has taken our session up there."""
        self.route.succeeded(self.name)
        if self._starter is not None:
            self._starter.found()

    def _look_up(self, name: str) -> None:
        try:
            threading.Thread(target=self._ask, args=(name,), name="dthreading-resolver", daemon=True).start()
        except RuntimeError as error:  # too many threads
            raise GroupUnreachable(f"looking up {name} failed: {error}") from None
        self._looking_up = name

    def _ask(self, name: str) -> None:
        try:
            self._found.append(resolve.endpoints(name))
        except DThreadingError as error:
            self._found.append(error)
        except Exception as error:  # noqa: BLE001 - whatever a resolver raises, the name was of no use
            self._found.append(GroupUnreachable(f"looking up {name} failed: {error}"))
        self._wake()

    def _looked_up(self) -> Endpoint | None:
        if not self._found:
            return None
        found = self._found.popleft()
        self._looking_up = ""
        if isinstance(found, DThreadingError):
            raise found
        self.route.told([endpoint.name for endpoint in found[1:]])
        return found[0]
