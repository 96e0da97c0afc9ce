"""``python -m tests.fuzz TARGET [options of libFuzzer]``: looks for inputs of a decoder that reach new code.

``make fuzz`` runs each target in turn. An input that raises what is not documented, takes longer than a second for its
kilobytes, or takes more memory than `libFuzzer`_ is told, ends it, and is left in a file beside the corpus.

.. _libFuzzer: https://llvm.org/docs/LibFuzzer.html
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["ebus_jupyter"]):
    from ebus_jupyter.core.protocol import frames, json_value
    from ebus_jupyter.core.protocol.address import Address
    from ebus_jupyter.core.protocol.codec import Codec
    from ebus_jupyter.core.protocol.position import Position
    from ebus_jupyter.core.protocol.validation import Validator
    from ebus_jupyter.errors import EbusError, ProtocolError, TypeMismatch

import msgspec

CODECS = [Codec(), Codec(list[int]), Codec(dict[str, float | str])]
ANYTHING = Validator.of(None)


def client_frames(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        frames.join([frames.encode(frame) for frame in frames.from_client(data)])


def broker_frames(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        frames.from_broker(data)


def values(data: bytes) -> None:
    for codec in CODECS:
        try:
            codec.decode(data)
        except TypeMismatch:
            continue
    try:
        ANYTHING.check(data, "votes")
    except TypeMismatch:
        return
    text = msgspec.json.encode(json_value.to_json(data))
    again = json_value.from_json(msgspec.json.decode(text))
    assert msgspec.json.encode(json_value.to_json(again)) == text


def json(data: bytes) -> None:
    try:
        form = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    try:
        json_value.from_json(form)
    except TypeMismatch:
        return


def addresses(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        address = Address.parse(text)
    except EbusError:
        return
    assert Address.parse(str(address)) == address


def positions(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        position = Position.parse(text)
    except (EbusError, ValueError):
        return
    assert Position.parse(str(position)) == position


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (client_frames, broker_frames, values, json, addresses, positions)
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
