# SPDX-License-Identifier: Apache-2.0
"""Ours and the standard library's own, step by step, in whatever order hypothesis thinks of: equal after each.

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
STEPS = 40


def machine_for(specs: tuple[Spec, ...]) -> type[RuleBasedStateMachine]:
    """Programs that use one object of one of these makes."""
    most = max(len(spec.operations) for spec in specs)

    class Program(RuleBasedStateMachine):
        duel: Duel | None = None

        @initialize(threads=st.integers(2, 4), processes=st.integers(1, 2), spec=st.sampled_from(specs))
        def begin(self, threads: int, processes: int, spec: Spec) -> None:
            self.spec = spec
            self.duel = Duel(threads, processes, spec.make, spec.reads)

        @precondition(lambda self: self.duel is not None and bool(self.duel.idle))
        @rule(which=st.integers(0, 3), operation=st.integers(0, most - 1))
        def call(self, which: int, operation: int) -> None:
            assert self.duel is not None
            thread = self.duel.idle[which % len(self.duel.idle)]
            text, work = self.spec.operations[operation % len(self.spec.operations)]
            if self.spec.may(self.duel, thread, text):
                self.duel.step(thread, text, work)

        @precondition(lambda self: self.duel is not None and len(self.duel.idle) < len(self.duel.threads))
        @rule(seconds=st.sampled_from((0.25, 0.5, 1, 3)))
        def pass_time(self, seconds: float) -> None:
            assert self.duel is not None
            self.duel.pass_time(seconds)

        @precondition(lambda self: self.duel is not None)
        @rule()
        def restart(self) -> None:
            assert self.duel is not None
            self.duel.restore()

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
