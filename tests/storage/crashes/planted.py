# SPDX-License-Identifier: Apache-2.0
"""Bugs planted in copies of the storage package: each must be caught, or the searches prove nothing.

Each is one mistake that a storage engine has really been shipped with, as a change of text. `hunt` runs the searches
against it until one objects, and says after how many states.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from tests.storage.crashes import failing, rot
from tests.storage.crashes.package import Edit, load
from tests.storage.crashes.search import Search

__all__ = ["PLANTED", "Caught", "Planted", "hunt"]

STATES_MAX: Final = 20_000
"""After so many states of a search a bug counts as missed by it."""

SEED: Final = 3
"""Where the hunt begins."""

BARE_SEED: Final = 332
"""Where the hunt for a directory begins whose log holds nothing but promises: of it whole files are taken away."""

SEEDS: Final = {
    "segments are dropped before the snapshot is in place": 1,
    "segments are dropped together, with no sync between": 2,
    "opening does not make the names durable that it found": 1,
    "opening does not make the batch durable that it found": 5,
    "the promise of a snapshot is forgotten": 1,
    "a snapshot that was damaged on its way is taken": 10,
    "a received snapshot's promise hides that of the one before": 74,
    "an older snapshot replaces a newer one": 2,
    "a segment's last slot is that of its last batch": 47,
    "a segment's last slot is that of its last batch, when it is read again": 238,
    "the last segment is dropped, too": 1,
    "a doubtful slot counts as chosen": 13,
}
"""And elsewhere for those that show only in some runs, so that continuous integration need not wait for them."""


class Planted(NamedTuple):
    """A mistake. `by` is the search that is to find it first: crashes, rot, or failing disks."""

    name: str
    by: str
    edits: tuple[Edit, ...]


class Caught(NamedTuple):
    """How a planted bug was found."""

    name: str
    by: str
    states: int
    how: str


def _planted(name: str, by: str, *edits: tuple[str, str, str]) -> Planted:
    return Planted(name, by, tuple(Edit(*edit) for edit in edits))


PLANTED: Final = (
    _planted(
        "a batch is acknowledged without a sync",
        "crashes",
        ("log.py", "self._file.write_durable(self._position, sectors)", "self._file.write(self._position, sectors)"),
    ),
    _planted(
        "a batch is synced before it is written",
        "crashes",
        (
            "log.py",
            "self._file.write_durable(self._position, sectors)",
            "self._file.sync(); self._file.write(self._position, sectors)",
        ),
    ),
    _planted(
        "a segment is named before its zeros are synced",
        "crashes",
        (
            "segments.py",
            "            self._file.sync()\n            self._zeroed += length",
            "            self._zeroed += length",
        ),
    ),
    _planted(
        "a segment's name is not synced",
        "crashes",
        (
            "segments.py",
            "            self._disk.sync()\n            self._ready = True",
            "            self._ready = True",
        ),
    ),
    _planted("the identity is renamed before it is synced", "crashes", ("identity.py", "        aside.sync()\n", "")),
    _planted(
        "the identity's name is not synced",
        "crashes",
        ("identity.py", "IDENTITY_NAME)\n    disk.sync()", "IDENTITY_NAME)"),
    ),
    _planted(
        "a snapshot is renamed before it is synced",
        "crashes",
        ("snapshots.py", "        self._file.sync()\n        yield\n", "        yield\n"),
    ),
    _planted(
        "a snapshot's name is not synced",
        "crashes",
        ("snapshots.py", "SNAPSHOT_NAME)\n        self.disk.sync()", "SNAPSHOT_NAME)"),
    ),
    _planted(
        "segments are dropped before the snapshot is in place",
        "crashes",
        (
            "snapshots.py",
            (
                "        self._snapshots.put_in_place(self._aside, header)\n        yield\n"
                "        yield from self._snapshots.installed(header)"
            ),
            (
                "        yield from self._snapshots.installed(header)\n"
                "        self._snapshots.put_in_place(self._aside, header)"
            ),
        ),
    ),
    _planted(
        "segments are dropped together, with no sync between",
        "crashes",
        (
            "log.py",
            "            self._disk.remove(oldest.name)\n",
            "            self._disk.remove(oldest.name); return True\n",
        ),
    ),
    _planted(
        "a segment is dropped that holds more than the snapshot",
        "crashes",
        ("log.py", "self._segments[0].last_slot > slot", "self._segments[0].last_slot > slot + 2"),
    ),
    _planted(
        "opening does not make the names durable that it found",
        "crashes",
        ("store.py", "        self._disk.sync()\n        rot = self._snapshots", "        rot = self._snapshots"),
    ),
    _planted(
        "opening does not make the batch durable that it found",
        "crashes",
        ("mending.py", "    if sectors:\n        file.write_durable(position, sectors)\n", ""),
    ),
    _planted(
        "mending drops the newest whole batch",
        "crashes",
        ("mending.py", "_blank(file, state.position)", "_blank(file, position)"),
    ),
    _planted("mending leaves the torn tail", "crashes", ("mending.py", "    _blank(file, state.position)\n", "")),
    _planted(
        "mending does not sync its zeros",
        "crashes",
        ("mending.py", "    if sectors:\n        file.sync()\n", ""),
    ),
    _planted(
        "mending removes the segment that it stands in",
        "crashes",
        ("mending.py", "        if later > index:", "        if later >= index and later > 1:"),
    ),
    _planted(
        "mending takes a segment for new that holds something",
        "crashes",
        ("mending.py", ' and not data.strip(b"\\0"):', ":"),
    ),
    _planted(
        "mending zeroes only where the torn tail begins",
        "crashes",
        ("mending.py", "    for at in sectors:", "    for at in sectors[:1]:"),
    ),
    _planted(
        "the identity is written over itself",
        "crashes",
        ("identity.py", 'IDENTITY_ASIDE: Final = "identity.new"', 'IDENTITY_ASIDE: Final = "identity"'),
    ),
    _planted(
        "a received snapshot's promise hides that of the one before",
        "crashes",
        ("store.py", "promised=max(header.promised, former.promised)", "promised=header.promised"),
    ),
    _planted(
        "an older snapshot replaces a newer one",
        "crashes",
        ("snapshots.py", "if current is not None and current.slot >= header.slot:", "if False:"),
    ),
    _planted(
        "a segment's last slot is that of its last batch",
        "crashes",
        ("log.py", "max(segment.last_slot, *pending, 0)", "max(pending, default=0)"),
    ),
    _planted(
        "a segment's last slot is that of its last batch, when it is read again",
        "crashes",
        ("recovery.py", "segment.last_slot = max(segment.last_slot, header.last)", "segment.last_slot = header.last"),
    ),
    _planted(
        "the last segment is dropped, too",
        "crashes",
        (
            "log.py",
            "len(self._segments) < 2 or self._segments[0].last_slot > slot",
            "not self._segments or self._segments[0].last_slot > slot",
        ),
    ),
    _planted(
        "a doubtful slot counts as chosen",
        "rot",
        (
            "store.py",
            "state.chosen, min(state.doubtful, default=state.chosen + 1) - 1, entries",
            "state.chosen, entries",
        ),
    ),
    _planted(
        "a slot that was written again stays doubtful",
        "rot",
        ("recovery.py", "self.doubtful.discard(slot)", "pass"),
    ),
    _planted(
        "a snapshot that is gone is not missed",
        "rot",
        ("store.py", "if header is None and state.segments[0].index != FIRST_INDEX:", "if False:"),
    ),
    _planted(
        "mending drops what can be saved of a doubtful batch",
        "rot",
        ("mending.py", "for entry in lost.saved]", "for entry in lost.saved[1:]]"),
    ),
    _planted(
        "a torn tail is taken for rot",
        "crashes",
        (
            "batches.py",
            "(Verdict.TORN if torn else Verdict.DOUBTFUL), header",
            "(Verdict.ROT if torn else Verdict.DOUBTFUL), header",
        ),
    ),
    _planted(
        "the promise of older batches is forgotten",
        "crashes",
        (
            "log.py",
            "            promised=promised,\n            chosen=chosen,",
            "            promised=promised if not pending else (0, 0),\n            chosen=chosen,",
        ),
        ("recovery.py", "self.promised = max(self.promised, header.promised)", "self.promised = header.promised"),
    ),
    _planted(
        "the promise of a snapshot is forgotten",
        "crashes",
        ("store.py", "header.promised if header is not None else NO_BALLOT)", "NO_BALLOT)"),
    ),
    _planted(
        "a snapshot that was damaged on its way is taken",
        "crashes",
        ("snapshots.py", "        if self._received and header != self._header:", "        if False:"),
    ),
    _planted(
        "rot is taken for a torn tail",
        "rot",
        ("recovery.py", "any(stamp > wanted for", "any(stamp < 0 for"),
        (
            "recovery.py",
            "return any(not (other == index and at in extent)",
            "return any(False and not (other == index and at in extent)",
        ),
        ("batches.py", "Verdict.TORN if is_blank(data, position) else Verdict.ROT", "Verdict.TORN"),
    ),
    _planted(
        "a doubtful batch is taken for a torn one",
        "rot",
        ("batches.py", "(Verdict.TORN if torn else Verdict.DOUBTFUL), header", "Verdict.TORN, header"),
    ),
    _planted(
        "a batch's checksum is not checked",
        "rot",
        ("batches.py", "!= header.chain:", "!= header.chain and False:"),
        ("batches.py", "stream[:HEADER_BYTES] != stream[-HEADER_BYTES:]", "False"),
    ),
    _planted(
        "a batch's header is not checked",
        "rot",
        ("batches.py", "crc32(raw[: -_CRC.size]) != crc", "False"),
        ("batches.py", "!= header.chain:", "!= header.chain and False:"),
    ),
    _planted(
        "a record's checksum and length are not checked",
        "rot",
        ("records.py", "        if end > len(body):\n            return\n", ""),
        ("records.py", "!= crc:", "!= crc and False:"),
    ),
    _planted(
        "a batch of another place or life is accepted",
        "rot",
        (
            "recovery.py",
            "return batch if place == (self._state.number + 1, self._state.chain, index) else None",
            "return batch",
        ),
    ),
    _planted(
        "a snapshot's contents are not checked",
        "rot",
        (
            "snapshots.py",
            "if checksum.digest() != header.checksum:\n            file.close()",
            "if False:\n            file.close()",
        ),
    ),
    _planted(
        "a snapshot's header is not checked",
        "rot",
        ("snapshots.py", "    if crc32(encoded) != crc:\n        return None\n", ""),
    ),
    _planted(
        "the identity is not checked",
        "rot",
        ("identity.py", "len(payload) != length or crc32(payload) != crc", "len(payload) != length"),
    ),
    _planted(
        "after a failed sync it goes on", "failing", ("files.py", "        self._reason = self._reason or reason\n", "")
    ),
    _planted(
        "a failed sync is tried again",
        "failing",
        (
            "log.py",
            "        self._file.write_durable(self._position, sectors)\n",
            (
                "        try:\n            self._file.write_durable(self._position, sectors)\n"
                "        except OSError:\n            self._file.sync()\n"
            ),
        ),
    ),
)


def hunt(planted: Planted) -> Caught | None:
    """Runs the search that is to find it. None when it was missed."""
    package = load(f"planted_{PLANTED.index(planted)}", planted.edits)
    if planted.by == "crashes":
        tried = 0
        for broad in (True, False):
            search = Search(package, STATES_MAX, broad=broad)
            found = search.run(SEEDS.get(planted.name, SEED))
            tried += search.distinct
            if found is not None:
                return Caught(planted.name, planted.by, tried, found.objection.splitlines()[0])
        return None
    if planted.by == "rot":
        return _hunt_rot(planted, package)
    problems, tried = failing.every_failure(package, SEED)
    return Caught(planted.name, planted.by, tried, problems[0].splitlines()[-1]) if problems else None


def _hunt_rot(planted: Planted, package: object) -> Caught | None:
    search = rot.RotSearch(package, rot.bare(load("small"), BARE_SEED))  # type: ignore[arg-type]
    search.all(rot.wholes(search.files))
    tried = search.count
    if search.problems:
        return Caught(planted.name, planted.by, tried, search.problems[0].splitlines()[-1].strip())
    first = SEEDS.get(planted.name, SEED)
    for seed in range(first, first + 3):
        story, files = rot.settled(load("small"), seed)  # the copy that writes is sound: it is the reading that is not
        search = rot.RotSearch(package, files)  # type: ignore[arg-type]
        few = rot.flips(files, (rot.ONE_BIT,), every=37)
        for damages in (rot.sectors(story, files, random.Random(seed), 4), rot.wholes(files), few):
            for damage in damages:
                search.one(damage)
                if search.problems:
                    how = search.problems[0].splitlines()[-1].strip()
                    return Caught(planted.name, planted.by, tried + search.count, f"{damage.what}: {how}")
        tried += search.count
    return None
