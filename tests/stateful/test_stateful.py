# SPDX-License-Identifier: Apache-2.0
"""Ours and the standard library's own, step by step, in whatever order hypothesis thinks of: equal after each.

Among the steps are Ctrl-C where a thread waits, Ctrl-C in the very moment of the grant (before the thread's turn, or
with the withdrawal on its way while another thread does something), and timeouts that are up just as they are granted.

STATEFUL_EXAMPLES=n in the environment runs n programs of each kind instead of the default, with seeds of chance, and
prints how many steps were compared (with -s). `duel` says what is compared, `reference` where the two differ by intent.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.stateful.duel import Duel, compared
from tests.stateful.specs import SPECS, Spec

ASKED = os.environ.get("STATEFUL_EXAMPLES")
EXAMPLES = int(ASKED or 60)
STEPS = 50

RESTART = 19
PASS_TIME = range(16, 19)
RACE_TIME = 15
RACE_INTERRUPT = (13, 14)
INTERRUPT = 12
SPANS_S = (0.25, 0.5, 1, 3)
"""Beside the timeouts of 1, 1.5, 2 and 2.5 seconds: before them, at them, after."""


def is_two_words(text: str) -> bool:
    """A Condition's wait with no time at all: ours are two words, to wait and to wait no longer, and what is on its way
    may come between them, where the standard library has one step. Either may have the lock first.
    """
    return text.startswith(("full.wait", "empty.wait")) and text.endswith(("(0)", "(-1)", " 0)", " -1)"))


def machine_for(specs: tuple[Spec, ...]) -> type[RuleBasedStateMachine]:
    """Programs that use one object of one of these makes."""
    most = max(len(spec.operations) for spec in specs)

    class Program(RuleBasedStateMachine):
        duel: Duel | None = None

        @initialize(threads=st.integers(2, 4), processes=st.integers(1, 2), spec=st.sampled_from(specs))
        def begin(self, threads: int, processes: int, spec: Spec) -> None:
            self.spec = spec
            self.duel = Duel(threads, processes, spec.make, spec.reads)

        @precondition(lambda self: self.duel is not None)
        @rule(turn=st.integers(0, 19), which=st.integers(0, 3), operation=st.integers(0, most - 1))
        def step(self, turn: int, which: int, operation: int) -> None:
            """One rule for all, since chance would give each of several an equal share."""
            duel = self.duel
            assert duel is not None
            if turn == RESTART:
                duel.restore()
            elif turn == INTERRUPT and duel.waiting:
                duel.interrupt(duel.waiting[which % len(duel.waiting)])
            elif turn in PASS_TIME or not duel.idle:
                duel.pass_time(SPANS_S[operation % len(SPANS_S)])
            else:
                thread = duel.idle[which % len(duel.idle)]
                text, work = self.spec.operations[operation % len(self.spec.operations)]
                if not self.spec.may(duel, thread, text):
                    return
                waiting = duel.waiting
                if turn in RACE_INTERRUPT and waiting and not is_two_words(text) and not duel.may_act_for_long:
                    struck = waiting[(which + operation) % len(waiting)]
                    duel.race_interrupt(struck, thread, text, work, on_the_way=turn == RACE_INTERRUPT[0])
                elif turn == RACE_TIME and waiting:
                    duel.race_timeouts(SPANS_S[(which + operation) % len(SPANS_S)], thread, text, work)
                else:
                    duel.step(thread, text, work)

        def teardown(self) -> None:
            if self.duel is not None:
                try:
                    self.duel.pass_time(100)
                finally:
                    self.duel.end()

    return Program


def try_all(specs: tuple[Spec, ...], examples: int, **how: Any) -> None:
    run_state_machine_as_test(
        machine_for(specs),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            derandomize=ASKED is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **how,
        ),
    )


@pytest.mark.timeout(0 if ASKED else 120)
@pytest.mark.parametrize("specs", SPECS, ids=lambda specs: specs[0].name)
def test_ours_does_what_the_standard_library_does(specs: tuple[Spec, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, exceptions and their texts, who waits and who does not, sizes and flags."""
    monkeypatch.setenv("DTHREADING_NAMING", "auto")
    before = compared[0]
    try_all(specs, EXAMPLES)
    print(f"{specs[0].name}: {compared[0] - before} steps compared")
    assert compared[0] - before > EXAMPLES
