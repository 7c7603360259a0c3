# SPDX-License-Identifier: Apache-2.0
"""The measurable promises, measured: one small file for each claim, over one harness.

    python -m benchmarks [--quick] [--json FILE] [NAME ...]

harness.py (options, groups, tables), procfs.py (what the kernel knows of a process), worker.py (a client process with
the real client), crowd.py (thousands of sessions in this process), floors.py (what the machine itself takes).
"""
