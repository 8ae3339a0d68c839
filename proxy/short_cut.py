"""The shortest way of a stream's chunk: from the read of a provider's connection to the write to a client's, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.core.call import Call
from proxy.core.protocols import Outlet, Sink
from proxy.core.recast import NO_CASTS, PLAIN, is_text
from proxy.watch import Watch


def short_cut(
    decoder: Any, call: Call, watch: Watch, sink: Sink, outlet: Outlet, hand_on: Callable[[bytes], bool]
) -> Callable[[bytes], None]:
    """What takes a provider's bytes in the stead of `hand_on`; see `proxy.core.protocols.ShortCut`.

    A chunk that differs from others in a short text (and its padding) alone goes to the client at once. `hand_on` gets all others, and
    everything while the client lags. `decoder` has a `frame`; see `StreamDecoder`.
    """
    transport, monotonic = outlet.transport, watch.monotonic
    write = None if transport is None else transport.write
    casts, between = NO_CASTS, b""

    def data_received(data: bytes) -> None:
        nonlocal casts, between
        before, after, size, shown_before, shown_after, shown_size = casts[len(data)]
        text = data.removesuffix(after).removeprefix(before)
        if len(text) == size and not outlet.lags and write is not None:
            if between:
                text, _, padding = text.partition(between)
                text = text if padding.isalnum() else b""
                shown_after = b"".join((casts.shown_between, padding, shown_after))
            if text and (text.translate(PLAIN) == text or is_text(text)):
                decoder.tokens += 1
                call.last_token = watch.last = monotonic()
                sink.bytes_out += shown_size
                write(data if shown_before is None else b"".join((shown_before, text, shown_after)))
                return
        frame = decoder.frame if hand_on(data) else None
        casts = NO_CASTS if frame is None or frame.casts is None else frame.casts
        between = casts.between

    return data_received
