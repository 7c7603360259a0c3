# SPDX-License-Identifier: Apache-2.0
"""The measurable promises, measured: one small file for each claim, over one harness.

    python -m benchmarks [--quick] [--strict] [--json FILE] [--svg DIR] [--peers results.json] [NAME ...]
    python -m benchmarks --base REV [--quick]

Linux only: they read /proc and pin processes to CPUs.

harness.py (options, groups, tables), procfs.py (what the kernel knows of a process), worker.py (a client process with
the real client), client.py and fleet.py (client processes of many threads, with the code of any revision), crowd.py
(thousands of sessions in this process), floors.py (what the machine itself takes), placing.py (on which CPU each
process runs), demands.py (the promises of speed), versus.py (against another revision), svg.py (plots).
"""
