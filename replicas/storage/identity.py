# SPDX-License-Identifier: Apache-2.0
"""Who a directory is: one small file, replaced as a whole, so it says the old or the new and never something between.

    "dthreads" | format version | length | CRC32 of the payload | payload: msgpack (incarnation, formation)

The format version is that of the whole directory. Whatever a later version keeps elsewhere, these first 20 bytes stay
as they are, so that an older server can say which version it does not know.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

import msgpack

from replicas.storage.files import Disk, StorageRefused

IDENTITY_NAME: Final = "identity"
IDENTITY_ASIDE: Final = "identity.new"
FORMAT_VERSION: Final = 1
IDENTITY_BYTES_MAX: Final = 1 << 20
"""A configuration of seven members takes less than a kilobyte."""

_PREFIX: Final = struct.Struct(">8sIII")
_MAGIC: Final = b"dthreads"


class Identity(NamedTuple):
    """`incarnation` was drawn when the directory was formatted; `formation` is opaque here, None until a group is
    formed.
    """

    incarnation: bytes
    formation: bytes | None


def write_identity(disk: Disk, identity: Identity) -> None:
    payload: bytes = msgpack.packb(tuple(identity))
    assert len(payload) <= IDENTITY_BYTES_MAX
    aside = disk.create(IDENTITY_ASIDE)
    try:
        aside.write(0, _PREFIX.pack(_MAGIC, FORMAT_VERSION, len(payload), crc32(payload)) + payload)
        aside.sync()
    finally:
        aside.close()
    disk.rename(IDENTITY_ASIDE, IDENTITY_NAME)
    disk.sync()


def read_identity(disk: Disk) -> Identity:
    file = disk.open(IDENTITY_NAME)
    try:
        raw = file.read(0, _PREFIX.size + IDENTITY_BYTES_MAX)
    finally:
        file.close()
    damaged = StorageRefused(
        f"The identity file of {disk.name} is damaged: this replica must be replaced under a new id."
    )
    if len(raw) < _PREFIX.size:
        raise damaged
    magic, version, length, crc = _PREFIX.unpack_from(raw)
    if magic != _MAGIC:
        raise damaged
    if version != FORMAT_VERSION:
        raise StorageRefused(
            f"{disk.name} has format version {version}; this server knows version {FORMAT_VERSION} only."
        )
    payload = raw[_PREFIX.size :]
    if len(payload) != length or crc32(payload) != crc:
        raise damaged
    incarnation, formation = msgpack.unpackb(payload)
    return Identity(incarnation, formation)
