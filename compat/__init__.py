# SPDX-License-Identifier: Apache-2.0
"""Judges from outside: CPython's own suites, other packages' suites."""
