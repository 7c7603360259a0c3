# SPDX-License-Identifier: Apache-2.0
"""What is fuzzed without any state: the decoders, the stream of frames, both sides of the handshake, items and places.

A target is a function of a `random.Random`: one call is one case, and it returns how many frames it has tried. It
raises AssertionError, or whatever escaped, when something is wrong. Cases count what they do instead of timing it.
"""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any, Final

import msgpack

from dthreading.errors import LimitExceeded, NotAuthenticated, ProtocolError
from dthreading.wire import codec, limits, messages, places, values
from dthreading.wire.auth import Acceptor, Connector
from dthreading.wire.framing import FrameDecoder
from replicas.daemon.peers import Introduction, _introductions
from replicas.machine import commands
from replicas.paxos.values import decode_ballot, decode_configuration, encode_configuration
from replicas.replica import messages as peers
from tests.wire import fuzz_words as words
from tests.wire import plain

CODECS: Final[dict[str, tuple[Any, dict[int, Any]]]] = {
    "client": (codec._codec, dict(codec.TAGS)),
    "command": (commands.codec, dict(commands.codec._checks.table)),
    "peer": (peers.codec, dict(peers.codec._checks.table)),
    "introduction": (_introductions, {100: Introduction}),
}

BIG_INT: Final = 1


def reference(body: bytes, table: dict[int, Any]) -> Any:
    """The message in the body as the plain checks see it, by msgpack's slowest and most cautious path; or None."""
    unpacker = msgpack.Unpacker(
        use_list=False,
        ext_hook=extension,
        max_array_len=limits.ELEMENTS_MAX,
        max_map_len=limits.ELEMENTS_MAX,
        max_buffer_size=len(body) + 1,
    )
    unpacker.feed(body)
    try:
        fields = unpacker.unpack()
        if unpacker.tell() != len(body) or type(fields) is not tuple or type(fields[0]) is not int:
            return None
        cls = table.get(fields[0])
        return None if cls is None else plain.check(cls, fields[1:])
    except Exception:
        return None


def extension(code: int, data: bytes) -> int:
    if code != BIG_INT or len(data) > limits.INT_BYTES_MAX + 8:
        raise ValueError(code)
    return int.from_bytes(data, "big", signed=True)


def decode(luck: random.Random, name: str) -> int:
    """A body to one of the decoders."""
    judge(words.body(luck, CODECS[name][1]), name)
    return 1


def judge(body: bytes, name: str) -> None:
    """What comes out is what the plain checks say, and comes back from its own bytes."""
    decoder, table = CODECS[name]
    try:
        message = decoder.decode(body)
    except ProtocolError:
        if name not in {"peer", "introduction"} and len(body) < 4096:
            # Replicas' words have rules besides; and a survey may refuse what only claims more than it has.
            expected = reference(body, table)
            assert expected is None, "refused, and nothing is wrong with it"
        return
    assert words.sight(message) == words.sight(reference(body, table)), "taken for something else"
    again = decoder.decode(decoder.encode(message))
    assert words.sight(again) == words.sight(message), "it does not come back as it was"


def client_frames(luck: random.Random) -> int:
    return decode(luck, "client")


def peer_frames(luck: random.Random) -> int:
    return decode(luck, "peer")


def command_frames(luck: random.Random) -> int:
    return decode(luck, "command")


def introductions(luck: random.Random) -> int:
    return decode(luck, "introduction")


def streams(luck: random.Random) -> int:
    """Frames one behind the other, cut anywhere, one of them perhaps of a bad length: the same bodies come out, and no
    more is kept than one frame and one read.
    """
    most = luck.choice((1, 5, 64, 4096))
    bodies = [luck.randbytes(luck.randrange(1, most + 1)) for _ in range(luck.randrange(8))]
    whole = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    bad = luck.random() < 0.5
    if bad:
        size = luck.choice((0, most + 1, 2**31, 2**32 - 1))
        whole += size.to_bytes(4, "big") + luck.randbytes(luck.randrange(20))
    decoder = FrameDecoder(most)
    got: list[bytes] = []
    at = 0
    refused = False
    while at < len(whole) and not refused:
        step = luck.choice((1, 1, 2, 3, 4, 5, 7, 100, 10_000))
        try:
            got += decoder.feed(whole[at : at + step])
        except ProtocolError:
            refused = True
        refused = refused or decoder.broken is not None
        assert decoder.partial <= most + 4 + step, "it keeps more than it may"
        at += step
    assert got == bodies
    assert refused == bad
    assert refused or decoder.partial == 0
    return len(bodies) + bad


def acceptors(luck: random.Random) -> int:
    """Whatever a connector says, in any order: nobody gets in without the secret, and nothing else escapes."""
    acceptor = Acceptor(b"s" * 32, luck.randbytes(16))
    table = {tag: cls for tag, cls in codec.TAGS.items() if tag <= 5}
    count = luck.randrange(1, 6)
    for _ in range(count):
        try:
            body = codec.encode(greeting(luck)) if luck.random() < 0.5 else words.body(luck, table)
            answer = acceptor.step(codec.decode(body))
        except ProtocolError:
            continue  # the connection would be cut; going on is harder for us than that
        assert answer is not None, "let in"
        assert len(codec.encode(answer)) <= limits.HANDSHAKE_FRAME_BYTES_MAX
        assert acceptor.role is None
    return count


def greeting(luck: random.Random) -> Any:
    """A handshake's frame that is right but for one thing, or altogether."""
    hello = messages.Hello(messages.PROTOCOL_MAGIC, messages.PROTOCOL_VERSION, luck.randrange(3), b"n" * 16)
    match luck.randrange(5):
        case 0:
            return hello
        case 1:
            return hello._replace(version=words.integer(luck))
        case 2:
            return hello._replace(role=words.integer(luck), nonce=luck.randbytes(luck.choice((0, 15, 16, 17))))
        case 3:
            return messages.Proof(luck.randbytes(luck.choice((0, 31, 32))))
        case _:
            return words.message(luck, luck.choice([messages.Hello, messages.Proof, messages.Challenge]))


def connectors(luck: random.Random) -> int:
    """Whatever an acceptor says: a connector proves nothing to one that does not know the secret."""
    connector = Connector(messages.Role.CLIENT, b"s" * 32, b"n" * 16)
    connector.hello()
    challenge = words.message(luck, messages.Challenge)
    try:
        connector.challenged(challenge)
    except NotAuthenticated:
        assert not connector.satisfied
        return 1
    raise AssertionError("it believed a stranger")


def items(luck: random.Random) -> int:
    """Plain items come back as they were; damaged ones, and those of a newer version, are told apart and end nothing.

    Pickled items are left out: they run code by their nature, and only clients that know the secret make them.
    """
    item = words.plain(luck, depth=4) if luck.random() < 0.9 else words.deep(luck)
    body = values.encode_item(item)
    if body[:1] == values.PLAIN:
        back = values.decode_item(body)
        assert words.sight(back) == words.sight(item)
        with contextlib.suppress(ProtocolError, TypeError):
            values.decode_item(values.PLAIN + words.damaged(luck, body[1:]))
    with contextlib.suppress(ProtocolError, TypeError):
        values.decode_item(values.PLAIN + words.hostile(luck))
        values.decode_item(luck.choice((b"", b"s", b"x")) + b"rest")
    return 3


def priorities(luck: random.Random) -> int:
    """What `priority_of` lets pass, a replica takes."""
    item = words.plain(luck, depth=4) if luck.random() < 0.8 else words.deep(luck)
    try:
        priority = values.priority_of(item)
    except (TypeError, ValueError):
        return 1
    call = messages.Call(1, 1, 1, 1, "put", (True, b"", priority), False)
    try:
        body = codec.pack_call((15, *call))
    except LimitExceeded:
        return 1
    assert codec.decode(body) == call
    return 1


def modules(luck: random.Random) -> int:
    """Any globals and any name: a name or None, a module or None."""
    named = {
        key: luck.choice(
            (words.plain(luck), words.text(luck), "__main__", "__mp_main__", "/a/b/__main__.py", "<stdin>")
        )
        for key in ("__name__", "__spec__", "__file__")
        if luck.random() < 0.8
    }
    name = places.module_name(named)
    assert name is None or isinstance(name, str)
    places.find_module(words.text(luck))
    return 1


def entries(luck: random.Random) -> int:
    """Bytes to the decoders of what consensus itself reads. They assert, since only what the border between replicas
    has looked at may come to them; so nothing but what that border catches may escape.
    """
    from replicas.paxos.values import Configuration
    from replicas.replica.soundness import _entry

    configuration = words.message(luck, Configuration)
    members = tuple(member._replace(id=abs(member.id) % 2**64) for member in configuration.members)
    body = encode_configuration(configuration._replace(epoch=abs(configuration.epoch) % 2**64, members=members))
    assert decode_configuration(body).members == members
    value = words.damaged(luck, body) if luck.random() < 0.7 else luck.randbytes(luck.randrange(40))
    for kind in range(5):
        flaw = _entry(kind, value)
        if flaw is None and kind == 2:
            assert decode_configuration(value).quorum >= 1
        if flaw is None and kind == 3:
            assert not math.isnan(decode_ballot(value).round)
    return 5


STATELESS: Final = {
    "client": client_frames,
    "peer": peer_frames,
    "command": command_frames,
    "introduction": introductions,
    "stream": streams,
    "acceptor": acceptors,
    "connector": connectors,
    "item": items,
    "priority": priorities,
    "module": modules,
    "entry": entries,
}
