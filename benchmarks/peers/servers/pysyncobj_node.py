# SPDX-License-Identifier: Apache-2.0
"""One PySyncObj member: python pysyncobj_node.py SELF OTHERS JOURNAL-or-'-' STATUS-FILE BATCH-0-or-1

Writes its own id to STATUS-FILE while it leads.  Also used by the client side: consumers().
"""

import sys
import threading
from pathlib import Path

QUEUES = 8
AUTO_UNLOCK = 75.0  # the value in PySyncObj's own documentation


def consumers(self_id):
    from pysyncobj.batteries import ReplCounter, ReplDict, ReplLockManager, ReplQueue

    lock = ReplLockManager(AUTO_UNLOCK, selfID=self_id)
    return lock, ReplCounter(), ReplDict(), [ReplQueue() for _ in range(QUEUES)]


def main():
    from pysyncobj import SyncObj, SyncObjConf

    me, others, journal, status, batch = sys.argv[1:6]
    lock, counter, table, queues = consumers(me)
    conf = SyncObjConf(journalFile=None if journal == "-" else journal, appendEntriesUseBatch=batch == "1")
    obj = SyncObj(me, others.split(","), consumers=[lock, counter, table, *queues], conf=conf)
    while True:
        leader = obj._getLeader()
        Path(status).write_text(str(leader) if leader is not None else "")
        threading.Event().wait(0.25)


if __name__ == "__main__":
    main()
