# SPDX-License-Identifier: Apache-2.0
"""Simulated operators: each asks the members for one thing until it is so, as `dthreading members` does.

Some are interrupted, and somebody else asks for the same at another replica. What an operator sets out to do in several
steps (an errand) is a generator of commands (see wishes.py), which is told how each ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.sim.group import ConnectionEnded, ToClient
from tests.sim.petitions import ENDED, Questions

if TYPE_CHECKING:
    from tests.sim.kernel import Kernel
    from tests.sim.network import Network

__all__ = ["Command", "Errand", "Steps"]

AGAIN_US = 100_000
"""Between two questions while the group is about it (`members.AGAIN_S`)."""
ANSWER_US = 1_500_000
"""How long one replica may take; a person's socket waits longer, but most that are down refuse at once."""
IN_VAIN_MAX = 12
"""So many questions are asked in vain (`members.UNANSWERED_S`); then somebody looks where the members are by now."""
INTERRUPTED = 0.3
"""How many commands are interrupted, and given again."""


class Command(NamedTuple):
    """What is asked for."""

    verb: str
    about: Callable[[], tuple[Any, ...] | None]
    """The arguments, once they are known."""
    once: bool = False
    """One answer is enough, whatever it says."""
    pointless: Callable[[], bool] = lambda: False
    """Whether nobody would go on asking: the machine that it is about is gone for good."""


Verdict = dict[str, Any]
Steps = Generator[Command | int, Verdict, None]
"""Commands, and pauses in microseconds. What comes back is the answer; {} when the command was given up."""


class Errand:
    """One operator's work.

    Args:
        node: where it sits in the network.
        steps: what is to be done.
        servers: where the members are, as somebody can tell who looks for them.

    """

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        node: int,
        name: str,
        steps: Steps,
        servers: Callable[[], Iterable[str]],
        luck: random.Random,
    ) -> None:
        self.name = name
        self.over = False
        self.said = ""
        """What the last answer was, for a failure's message."""
        self._kernel = kernel
        self._luck = luck
        self._steps = steps
        self._look_up = servers
        self._servers = [*servers()]
        self._in_vain = 0
        self._command: Command | None = None
        self._turn = 0
        self._at = 0
        self._ends = False
        self._questions = Questions(
            kernel.fresh, lambda to, message: network.send(node, to, message, message.connection)
        )
        network.attach(node, self._receive)
        kernel.at(0, self._go_on, None)

    def finish(self) -> None:
        """It begins nothing new; what it has asked for it wants to see done."""
        self._ends = True

    @property
    def removes(self) -> bool:
        """Whether it asks for somebody's removal just now."""
        return self._command is not None and self._command.verb == "remove"

    # --- from step to step

    def _go_on(self, verdict: Verdict | None) -> None:
        self._turn += 1
        self._command = None
        try:
            step = next(self._steps) if verdict is None else self._steps.send(verdict)
        except StopIteration:
            self.over = True
            return
        if self._ends:
            self._steps.close()
            self.over = True
        elif isinstance(step, int):
            self._kernel.at(step, self._go_on, {})
        else:
            self._command = step
            self._kernel.note(f"operator {self.name} {step.verb} {step.about()}")
            self._begin()
            if self._luck.random() < INTERRUPTED:
                self._kernel.at(int(self._luck.expovariate(1 / 400_000)), self._interrupt, step)

    def _begin(self) -> None:
        """The command is given."""
        self._luck.shuffle(self._servers)
        self._at = 0
        self._ask()

    def _interrupt(self, command: Command) -> None:
        """Ctrl-C; and somebody gives the same command again, elsewhere."""
        if self._command is command:
            self._kernel.note(f"operator {self.name} is interrupted")
            self._kernel.seen["members: an operator was interrupted"] += 1
            self._turn += 1
            self._questions.hang_up()
            self._later(self._luck.randint(0, 1_500_000), self._begin)

    # --- one command

    def _later(self, delay_us: int, action: Callable[[], None]) -> None:
        turn = self._turn
        self._kernel.at(delay_us, lambda: self._turn == turn and action())  # type: ignore[arg-type, return-value, func-returns-value]

    def _ask(self) -> None:
        command = self._command
        assert command is not None
        self._turn += 1
        if command.pointless():
            self._questions.hang_up()
            self._kernel.seen["members: a command was given up"] += 1
            self._go_on({})
            return
        about = command.about()
        if about is None:
            self._later(AGAIN_US, self._ask)
            return
        server = self._servers[self._at % len(self._servers)]
        self._questions.ask(server, f"members.{command.verb}", about)
        self._later(ANSWER_US, self._next_server)

    def _next_server(self) -> None:
        self._questions.hang_up()
        self._at += 1
        self._turn += 1
        self._in_vain += 1
        if self._in_vain > IN_VAIN_MAX:
            self._in_vain = 0
            self._servers = [*self._look_up()]
            self._kernel.seen["members: an operator knew nobody any more"] += 1
        self._later(AGAIN_US // len(self._servers), self._ask)

    def _receive(self, source: int, message: ToClient | ConnectionEnded) -> None:
        if not self._questions.owns(message) or self._command is None:
            return
        answer = self._questions.heard(message)
        if answer is None:
            return
        if answer == ENDED:
            self._next_server()
            return
        self.said = str(answer.get("say"))
        self._servers += [server for server in answer.get("servers", ()) if server not in self._servers]
        if answer.get("refused") or answer.get("done") or (self._command.once and not answer.get("elsewhere")):
            self._kernel.note(f"operator {self.name} hears: {self.said}")
            self._go_on(answer)
        elif answer.get("elsewhere"):
            self._next_server()
        else:
            self._turn += 1
            self._in_vain = 0
            self._later(AGAIN_US, self._ask)

    def __str__(self) -> str:
        verb = self._command.verb if self._command is not None else "nothing"
        return f"operator {self.name} is {'done' if self.over else f'asking for {verb}: {self.said}'}"
