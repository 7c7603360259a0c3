# SPDX-License-Identifier: Apache-2.0
"""What Lock and RLock share: taking and giving back, by this thread, in its process's record of holds.

Three promises are kept here and nowhere else: an interrupt between a grant and the caller's next line gives the grant
back; what a lease took is never used in silence (LockLost); `with` never hides what its body raised.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

from dthreading import holds, naming, runtime
from dthreading.entering import STRIKES_MAX, Entered
from dthreading.errors import DThreadingError, LockLost
from dthreading.holds import Hold, Holds, holds_of
from dthreading.proxy import FOR_EVER_S
from dthreading.session.calls import ACQUIRE, READ, TRY_ACQUIRE
from dthreading.wire.messages import Lifetime

if TYPE_CHECKING:
    from dthreading.session.calls import Answer

__all__ = ["Ownable"]

logger = logging.getLogger("dthreading")


class Ownable(Entered):
    """What Lock and RLock share, and what a Condition needs of either."""

    __slots__ = ("_proxy_born", "_proxy_holds")

    _proxy_probe: ClassVar[tuple[str, tuple[Any, ...]]] = ("locked", ())
    _proxy_holds: Holds
    _proxy_born: int
    """In which generation of forked processes it was made."""

    def __init__(self, *, name: str | None = None) -> None:
        self._proxy_init(name)

    def _proxy_be(self, named: naming.Name, arguments: tuple[Any, ...]) -> None:
        super()._proxy_be(named, arguments)
        self._proxy_born = holds.generation()

    def _proxy_settle(self) -> None:
        super()._proxy_settle()
        self._proxy_hold_on_record()

    def _proxy_hold_on_record(self) -> None:
        target = self._proxy_target
        outlives = target.lifetime != Lifetime.PRIVATE
        self._proxy_holds = holds_of(target.namespace, target.name, outlives_proxies=outlives)

    def _proxy_revived(self, state: dict[str, Any]) -> None:
        super()._proxy_revived(state)
        self._proxy_born = holds.generation()
        if self._proxy_settled:
            self._proxy_hold_on_record()

    # --- what the user calls

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, as `threading` does: True once it is yours; False when it may not, or no longer, wait."""
        raise NotImplementedError

    def release(self) -> None:
        """Give it back."""
        raise NotImplementedError

    def locked(self) -> bool:
        """Whether anybody holds it, in any process. A round trip to the group."""
        return bool(self._ask("locked", (), READ).value)

    @property
    def fence(self) -> int | None:
        """The fencing token of the hold: this thread's, else the latest of this process; None where there is none.

        Strictly increasing per lock. Hand it to whatever the lock protects, and let that refuse smaller ones: no lease
        gives mutual exclusion over something that does not check.

        Raises:
            LockLost: the lease has ended, and the hold with it.

        """
        if not self._proxy_settled:
            return None
        hold = self._proxy_holds.of_anybody(runtime.thread_token())
        if hold is None:
            return None
        self._check_valid(hold)
        return hold.fence

    # --- inside

    def _check_valid(self, hold: Hold) -> None:
        if not runtime.client().holds_are_valid(hold.session):
            raise LockLost(
                f"{self._proxy_target}: the lease of session {hold.session} has ended, and the hold with fence"
                f" {hold.fence} with it; somebody else may hold it now"
            )

    def _acquire(self, blocking: bool, timeout: float) -> bool:
        # The arguments were checked: by the interpreter's own lock, so its errors are those of the running version.
        thread = runtime.thread_token()
        if not blocking or timeout == 0:
            arguments, manner, seconds = (False, thread), TRY_ACQUIRE, None
        else:
            arguments, manner = (True, thread), ACQUIRE
            seconds = None if timeout == -1 or timeout > FOR_EVER_S else float(timeout)
        answer: Answer | None = None
        try:
            answer = self._ask("acquire", arguments, manner, seconds)
            if answer.value is False:
                return False
            self._proxy_holds.note(thread, self._hold_in(answer))
            granted = True
            return granted  # noqa: RET504 - see Entered.__enter__
        except BaseException:
            if answer is not None and answer.value is not False:
                self._proxy_holds.note(thread, self._hold_in(answer))
                self._give_back()
            raise

    def _hold_in(self, answer: Answer) -> Hold:
        """What the answer to an acquire gave."""
        raise NotImplementedError

    def _release_once(self, thread: int, hold: Hold) -> int:
        """Asks the group to end that hold, or a level of it; the depth that is left."""
        raise NotImplementedError

    def _finish_release(self, thread: int, hold: Hold) -> None:
        """A release was interrupted on its way. The interrupt must arrive, and the lock must not stay held.

        Whoever wants a program to end presses Ctrl-C again. So further interrupts wait, too, until the group has said
        how things stand, but not for longer than a lease altogether: a group that is away could keep them for ever.
        """
        until = 0.0
        trouble: BaseException | None = None
        for _ in range(STRIKES_MAX):
            try:
                until = until or time.monotonic() + runtime.client().settings.lease
                if self._is_released(thread, hold):
                    return
                self._release_once(thread, hold)
            except BaseException as error:  # noqa: BLE001 - whatever strikes here, the first one is raised in the end
                trouble = error
                if isinstance(error, DThreadingError) or (until and time.monotonic() >= until):
                    break
        logger.warning("%r may still be held after an interrupted release", self._proxy_target, exc_info=trouble)

    def _is_released(self, thread: int, hold: Hold) -> bool:
        """Whether the release of that hold has happened, by the group's word. Then the record says so as well."""
        held = self._ask("holder", (), READ).value
        if held is None or held[2] != hold.fence:
            self._proxy_holds.forget(hold)
        elif held[3] < hold.depth:
            self._proxy_holds.note(thread, hold._replace(depth=held[3]))
        else:
            return False
        return True

    def _at_fork_reinit(self) -> None:
        """The lock shall be free, and this process's own: what the standard library's forked children ask for.

        A private lock becomes another one in the child, which the parent does not know. One with a name means the same
        everywhere, so it stays what it is: the child holds nothing of it, and the parent's hold is the parent's.
        Anywhere else, what this process holds is given back.
        """
        if self._proxy_born != holds.generation():
            if self._proxy_target.lifetime == Lifetime.PRIVATE:
                self._proxy_be(naming.Name(naming.mint("forked"), Lifetime.PRIVATE), ())
        elif self._proxy_settled and self._proxy_holds.of_anybody(runtime.thread_token()) is not None:
            self._give_back()
            self._proxy_holds.forget_all()
