"""Damage files at random, to test what reads them: a right result, or an error in words.

Everything is a function of the `random` that is passed, so a failing file can be made again.
"""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from random import Random
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

_DEEP, _LONG = "a deep nest", "a long text"
ODD_TEXTS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "0.5",
        "1e300",
        "1e999",
        "NaN",
        "-Infinity",
        "1_000",
        "٣",
        "\x00",
        "\x1b",
    ),
    *("x", "../x", "/", ".", "é", "\N{PILE OF POO}", "9" * 19, "9" * 5000, "x" * 300, _LONG, _DEEP),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 2**31, 2**64, -(10**400), 1e300, float("nan")),
    *(float("inf"), [], {}, [None], [[0]], {"id": 0}, [1, 2, 3, 4, 5], "\ud800", *ODD_TEXTS),
)
_PROLOGUES = (
    '<?xml version="1.0" encoding="none-such"?>',
    '<?xml version="1.0" encoding="utf-16"?>',
    '<?xml version="1.0" encoding="euc-jp"?>',
    '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
    '<!DOCTYPE annotation [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>",
)


def damage_bytes(data: bytes, random: Random, tokens: Sequence[bytes] = (b"\x00",)) -> bytes:
    """Return `data` after one to three edits: a bit, a piece, the end, or one of `tokens`."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        start = random.randint(0, len(data))
        end = min(len(data), start + 1 + int(random.expovariate(0.1)))
        before, piece, after = data[:start], data[start:end], data[end:]
        other = random.randint(0, len(data))
        bit = bytes(byte ^ 1 << random.randrange(8) for byte in piece[:1])
        edits = (
            before + bit + piece[1:] + after,
            before + after,
            before + piece * random.choice((2, 3, 50)) + after,
            before + random.choice(tokens) + piece + after,
            before + random.choice(tokens) + after,
            before + random.randbytes(len(piece)) + after,
            before + data[other:],
            before,
        )
        data = random.choices(edits, weights=(4, 2, 2, 2, 2, 2, 1, 1))[0]
    return data


def damage_json(text: str, random: Random) -> bytes:
    """Return json text in which one to three values were replaced, removed, moved or renamed."""
    root = {"": json.loads(text)}
    for _ in range(random.randint(1, 3)):
        places = list(_places(root))
        parent, key = random.choice(places)
        source, source_key = random.choice(places)
        edit = random.randrange(6)
        if edit == 0 and parent is not root:
            del parent[key]
        elif edit == 1 and isinstance(parent, dict) and parent is not root:
            parent[random.choice(ODD_TEXTS)] = parent.pop(key)
        elif edit == 2 and isinstance(parent, list):
            parent.insert(key, json.loads(json.dumps(parent[key])))
        elif edit == 3:
            parent[key] = json.loads(json.dumps(source[source_key]))
        else:
            parent[key] = deepcopy(random.choice(ODD_VALUES))  # the next edit may change it
    nest = random.choice(("[", '{"a":'))
    depth = random.choice((90, 900, 20_000))
    damaged = json.dumps(root[""]).replace(f'"{_DEEP}"', _nest(nest, depth, "0"))
    return damaged.replace(_LONG, "x" * 100_000).encode()


def damage_xml(text: str, random: Random) -> bytes:
    """Return XML in which one to three elements were removed, doubled, renamed or filled anew."""
    root = ElementTree.fromstring(text)
    for _ in range(random.randint(1, 3)):
        parent = random.choice(list(root.iter()))
        child = random.choice(list(parent) or [root])
        edit = random.randrange(6)
        if edit == 0 and child is not root:
            parent.remove(child)
        elif edit == 1 and child is not root:
            parent.insert(0, child)
        elif edit == 2:
            child.tag = random.choice(["x", "object", "size", "name", root.tag])
        else:
            child.text = random.choice(ODD_TEXTS)
    damaged = ElementTree.tostring(root, encoding="unicode")
    damaged = damaged.replace(_DEEP, _nest("<object>", random.choice((90, 20_000)), "0"))
    damaged = damaged.replace(_LONG, "x" * 100_000)
    if random.randrange(8) == 0:
        damaged = random.choice(_PROLOGUES) + damaged.replace("<name>", "<name>&e;&i;", 1)
    return damaged.encode()


def read_or_refuse(
    read: Callable[[], Result], names: str, seconds: float = 5.0
) -> tuple[Result | None, str]:
    """Return what `read` returns and "", or None and the message of the ValueError it raised.

    Raises:
        AssertionError: the message does not contain `names`.
        TimeoutError: reading took longer than `seconds`.
        Exception: any other error of `read`.
    """
    with _time_limit(seconds):
        try:
            return read(), ""
        except ValueError as error:
            message = str(error)
            if names not in message:
                raise AssertionError(f"{names} is not named: {message[:500]}") from error
            return None, message


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"reading took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container below `value` with each of its keys or indices."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _nest(opening: str, depth: int, middle: str) -> str:
    closing = {"[": "]", '{"a":': "}", "<object>": "</object>"}[opening]
    return opening * depth + middle + closing * depth
