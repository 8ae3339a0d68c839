"""The shortest way of a stream's chunk: from the read of a provider's connection to the write to a client's, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.core.call import Call
from proxy.core.protocols import Sink
from proxy.core.recast import LINES, NO_CAST, NO_CHUNK, PLAIN, chunk_of, is_text
from proxy.watch import Watch


def short_cut(
    decoder: Any, call: Call, watch: Watch, sink: Sink, hand_on: Callable[[bytes], bool], enough: Callable[[], None]
) -> Callable[[bytes], object]:
    """What takes a provider's bytes in the stead of `hand_on`; see `proxy.core.protocols.ShortCut`.

    A chunk that differs from others in a short text (and its padding) alone goes to the client at once. `hand_on` gets all others, and
    everything for a client that has left. `decoder` has a `frame`; see `StreamDecoder`.
    """
    outlet = sink.outlet
    if outlet is None or outlet.transport is None:
        return hand_on
    write, monotonic = outlet.transport.write, watch.monotonic
    cast = NO_CAST

    def data_received(data: bytes) -> None:
        nonlocal cast
        before, head, after, tail, around, most, between, shown_between, shown_after, hidden = cast
        line, size = chunk_of(len(data), NO_CHUNK)
        begin = len(line)
        if (
            0 < size - around < most
            and data.startswith(before, begin)
            and data.endswith(after)
            and data.startswith(line)
            and outlet.transport is not None
        ):
            text = data[begin + head : tail]
            padding = b""
            if between:
                text, _, padding = text.partition(between)
                text = text if padding.isalnum() else b""
            if text and (text.translate(PLAIN) == text or is_text(text)):
                decoder.tokens += 1
                call.last_token = watch.last = monotonic()
                size -= hidden
                sink.bytes_out += size
                if not hidden:
                    write(data)
                elif between:
                    write(b"".join((LINES[size], before, text, shown_between, padding, shown_after)))
                else:
                    write(b"".join((LINES[size], data[begin:tail], shown_after)))
                if outlet.lags:
                    cast = NO_CAST
                    enough()
                return
        frame = decoder.frame if hand_on(data) else None
        cast = NO_CAST if frame is None or frame.cast is None else frame.cast

    return data_received
