"""One attempt: target → encode → transport → decode. Innermost of the pipeline."""

from __future__ import annotations

import itertools
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from proxy.allowance import due_to, had_its_time, own_share
from proxy.core.board import COOL_DOWN
from proxy.core.call import Attempt, Call, Credential, Target, Timeouts, Usage
from proxy.core.errors import TOTAL, UpstreamError, let_go
from proxy.core.metrics import Registry
from proxy.core.protocols import UNSENT, Clock, LLMProvider, Reusing, Transport, UpstreamResponse
from proxy.core.reply import Reply
from proxy.core.unpaid import READ
from proxy.download import REDIRECTS, is_download
from proxy.heads import is_event_stream, made_at, media_type, redirect, shown_as, shown_of_download, shown_of_failure
from proxy.masking import Mask, MaskedBody, is_text, mask_of, masked
from proxy.pace import Pace, floor_of
from proxy.relay import Copy, beginning, relayed
from proxy.stream import TOO_LARGE, EventStream, read_begun, read_some, read_whole
from proxy.sweeper import Sweeper
from proxy.watch import Watch

#: Operations whose whole answers are read, checked for errors in disguise, and asked for their usage. All others stream through.
CHECKED = frozenset({"chat", "completion", "embedding", "responses"})

#: Failures after which the provider may have done (and charged for) work whose outcome never arrived.
MAY_HAVE_CHARGED = frozenset(
    {"reset", "bad_upstream", "upstream_timeout", "invalid_response", "response_too_large", "stream_interrupted", "stream_truncated"}
)

#: Operations whose answers are passed on as they come and whose work is charged: their usage is read once they are whole.
CHARGED = frozenset({"audio", "images", "moderations", "rerank", "score", "classify", "pooling"})

#: Of these, the largest that are read, in bytes, and of pictures, which are long strings, and responses: either takes some milliseconds.
_ACCOUNT_LIMIT, _LARGE_LIMIT = 2**20, 8 * 2**20

_ERROR_BODY_LIMIT = 256 * 1024

#: Seconds that the body of a refusal may take, once its head is there: what it means, its status says.
_ERROR_BODY_SECONDS = 5.0

#: Seconds that a credential is left alone which the provider refused, or whose account is empty, while there are others.
CREDENTIAL_RESTS = 60.0

_SHOULD_RETRY = {"true": True, "false": False}

#: Targets with their credentials are kept, as many as this: clients choose among names of models without end.
_MOST_AUTHORISED = 4096

#: Sets of header names are kept, as many as this: a provider's answers have few, but nothing keeps it from making them up.
_MOST_SHOWN = 256


@dataclass(slots=True)
class Upstream:
    """A configured provider, ready to be used. `timeouts` are decided by whether the client streams."""

    name: str
    provider: LLMProvider
    transport: Transport
    whole_timeouts: Timeouts = Timeouts(first_token=None)
    stream_timeouts: Timeouts = Timeouts()
    body_limit: int = 64 * 2**20
    credentials: tuple[Credential, ...] = ()
    mask: Mask | None = field(init=False)
    _turns: itertools.count[int] = field(default_factory=itertools.count)
    _authorised: dict[int | tuple[int, int], tuple[Target, Target]] = field(default_factory=dict)
    _resting: dict[Credential, float] = field(default_factory=dict)
    _limited: dict[Credential, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mask = mask_of(self.credentials)

    def timeouts(self, call: Call) -> Timeouts:
        return self.stream_timeouts if call.stream else self.whole_timeouts

    def credential(self, now: float = 0.0) -> Credential | None:
        """The next credential in turn of those that do not rest; the one that rests shortest if all of them do."""
        if len(self.credentials) < 2:
            return self.credentials[0] if self.credentials else None
        if self._resting:
            self._resting = {each: until for each, until in self._resting.items() if until > now}
        usable = [each for each in self.credentials if each not in self._resting] if self._resting else self.credentials
        if not usable:
            return min(self.credentials, key=self._resting.__getitem__)
        return usable[next(self._turns) % len(usable)]

    def rest(self, credential: Credential, now: float, seconds: float = CREDENTIAL_RESTS) -> tuple[bool, bool]:
        """Take a credential out of the turns for a while; whether it was in them, and whether another one is."""
        was_in = self._resting.get(credential, now) <= now
        self._resting[credential] = max(now + seconds, self._resting.get(credential, now))
        self._limited.pop(credential, None)
        return was_in, any(self._resting.get(each, now) <= now for each in self.credentials)

    def limit(self, credential: Credential, now: float, hint: float | None) -> tuple[bool, float | None]:
        """As `rest`, for a credential that had its share for now: whether another one is in, and else the hint of the whole.

        That is when the first of those that are limited has its share again, which may be before this one. `hint` as the provider said it.
        """
        told = hint or COOL_DOWN
        until = max(now + told, self._limited.get(credential, now))
        _, is_another_in = self.rest(credential, now, min(told, CREDENTIAL_RESTS))
        self._limited[credential] = until
        if is_another_in:
            return True, None
        soonest = min((end for end in self._limited.values() if end > now), default=until) - now
        return False, hint and min(hint, soonest)

    def authorised(self, target: Target, now: float = 0.0) -> Target:
        """`target` with the next credential in turn."""
        # By identity, since hashing a target costs more than all the rest; what is kept keeps both alive.
        credential = self.credentials[0] if self.credentials else None
        key: int | tuple[int, int] = id(target)
        if len(self.credentials) > 1:
            credential = self.credential(now)
            key = (id(target), id(credential))
        found = self._authorised.get(key)
        if found is None:
            if len(self._authorised) >= _MOST_AUTHORISED:
                self._authorised.clear()
            found = self._authorised[key] = (replace(target, credential=credential), target)
        return found[0]


class Dispatch:
    """The innermost handler.

    Of a stream it hands on nothing before content has begun: until then the caller may still retry or fall back.
    """

    def __init__(self, upstreams: Mapping[str, Upstream], clock: Clock, metrics: Registry) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._now = clock.monotonic
        self._shown_of: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
        self._sweeper = Sweeper(clock.monotonic)
        self._failures = metrics.counter("llm_upstream_failures_total", "Attempts that a provider failed.", "provider", "kind")
        self._out = metrics.counter("llm_credential_out_total", "Credentials taken out of the turns for a while.", "provider")
        self._counting = {name: partial(self._count, name) for name in upstreams}
        for name, upstream in upstreams.items():
            if isinstance(upstream.transport, Reusing):
                upstream.transport.stale = partial(self._count, name, "stale_connection")

    async def __call__(self, call: Call) -> Reply:
        target = call.target
        if target is None:
            raise LookupError("a call reached dispatch without a target: the route policy is missing")
        now = self._now
        upstream, chosen, started = self._upstreams[target.provider], target, now()
        if target.credential is None and upstream.credentials:
            call.target = target = upstream.authorised(target, started)
        if call.content is not None:
            call.awaited = 0.0
        attempt = Attempt(target, started)
        call.attempts.append(attempt)
        call.usage = None  # what others may have cost before is theirs
        response: UpstreamResponse | None = None
        try:
            timeouts = call.timeouts or upstream.timeouts(call)
            response = await upstream.transport.send(upstream.provider.encode(call, target), timeouts)
            if response.status == 200 and not call.stream and call.operation in CHECKED:
                body = response.ready()
                if body is not None:
                    return self._decoded(call, upstream, response, body)
            watch = Watch(self._clock, response, self._once_answered(call, response, timeouts, started), started, self._sweeper)
            if not _is_good(response):
                return await self._refused(call, upstream, response, watch)
            try:
                # More than the head is still to come.
                return await self._read_by(call, response)(call, upstream, response, watch)
            except BaseException:
                watch.stop()
                response.close()
                raise
        except UpstreamError as error:
            self._failed(call, attempt, error, response)
            call.target = chosen  # another try takes the next credential in turn
            raise
        except CancelledError as error:
            _spent(call, attempt, error, response)
            raise
        finally:
            attempt.ended = ended = now()
            call.upstream_seconds += ended - started

    def _once_answered(self, call: Call, response: UpstreamResponse, timeouts: Timeouts, started: float) -> Timeouts:
        """What holds for the rest of an answer whose head has come now."""
        first, total = timeouts.first_token, timeouts.total
        if call.content is not None:
            # The request's body took its time: its answer may take its own.
            took = self._now() - started
            if total is not None and "total" in timeouts.defaults:
                total += took
            timeouts = replace(timeouts, first_token=None if first is None else took + first, total=total)
        if not _is_good(response):
            end = self._now() - started + _ERROR_BODY_SECONDS
            timeouts = replace(timeouts, total=end if total is None else min(total, end))
        return timeouts

    def _failed(self, call: Call, attempt: Attempt, error: UpstreamError, response: UpstreamResponse | None) -> None:
        """What follows of a failure before anything of the answer has gone out."""
        if response is not None:
            error.headers = shown_of_failure(response)
            # Clients take a whole answer that is cut for one that has not come.
            error.answered = _is_good(response) and (call.stream or error.kind not in ("reset", "upstream_timeout"))
        self._note(call, attempt, error)
        turned_away = response is not None and 300 <= response.status < 500
        is_charged = error.usage is not None or (error.kind in MAY_HAVE_CHARGED and error.reached and not turned_away)
        attempt.usage = call.usage = call.accounted(error.usage) if is_charged else None
        self._rest(self._upstreams[attempt.target.provider], error, attempt.target.credential)

    def _note(self, call: Call, attempt: Attempt, error: UpstreamError) -> None:
        """Count a failure, and see that no provider's message shows the credential."""
        self._judge(call, attempt, error)
        attempt.error = error.kind
        if error.is_impatience:
            attempt.error = error.code
        else:
            self._count(attempt.target.provider, error.kind)
        if attempt.target.credential is not None:
            error.redact(attempt.target.credential.secret)

    def _judge(self, call: Call, attempt: Attempt, error: UpstreamError) -> None:
        """Acquit a provider that had less time than the administrator gives it."""
        given = call.timeouts
        if error.bound is None or given is None:
            return
        if call.content is not None and error.bound == TOTAL:
            given = own_share(given, call.awaited)
        if not had_its_time(error.bound, given, *due_to(call, self._upstreams[attempt.target.provider].timeouts(call))):
            error.acquit()

    def _rest(self, upstream: Upstream, error: UpstreamError, credential: Credential | None) -> None:
        """Do not use a credential again soon that was refused, whose account is empty, or which has had its share for now."""
        if credential is None:
            return
        if error.kind == "rate_limit_exceeded":
            if len(upstream.credentials) > 1:
                error.spare_credential, error.retry_after = upstream.limit(credential, self._now(), error.retry_after)
        elif error.kind in ("provider_auth", "insufficient_quota"):
            was_in, error.spare_credential = upstream.rest(credential, self._now())
            if was_in:
                self._out.labels(upstream.name).value += 1
        if error.spare_credential and error.kind != "provider_auth":
            error.retry_after = error.should_retry = None  # that was said of one credential, and another is asked at once

    def _count(self, provider: str, kind: str) -> None:
        self._failures.labels(provider, kind).value += 1

    def _read_by(self, call: Call, response: UpstreamResponse) -> Callable[[Call, Upstream, UpstreamResponse, Watch], Awaitable[Reply]]:
        """What makes the reply of a good answer."""
        if call.operation in CHECKED:
            return self._stream if call.stream and is_event_stream(response) else self._checked
        return self._stream if is_event_stream(response) else self._relay

    async def _refused(self, call: Call, upstream: Upstream, response: UpstreamResponse, watch: Watch) -> Reply:
        """An answer outside 2xx, raised as what it means, unless it says where a file lies.

        Its connection is as good as any; its body is read as far as an error object may reach. One that breaks off, stands still or cannot
        be read takes nothing from what the status and the headers say.
        """
        body, whole = b"", False
        try:
            body = await read_some(response, _ERROR_BODY_LIMIT, watch)
            whole = len(body) < _ERROR_BODY_LIMIT
        except UpstreamError as broken:
            let_go(broken)
        finally:
            watch.stop()
            response.close(reuse=whole)
        if response.status in REDIRECTS and is_download(call):
            headers = redirect(call, response)
            if headers is not None:
                return Reply(response.status, headers)
        error = upstream.provider.decode_error(response, body)
        error.should_retry = _SHOULD_RETRY.get(response.headers.get("x-should-retry", ""), error.should_retry)
        raise error

    async def _checked(self, call: Call, upstream: Upstream, response: UpstreamResponse, watch: Watch) -> Reply:
        if is_event_stream(response):
            raise UpstreamError("bad_upstream", "The provider answered with a stream that nobody asked for.")
        body = await read_whole(response, upstream.body_limit, watch)
        watch.stop()
        reply = self._decoded(call, upstream, response, body)
        if call.stream:
            error = UpstreamError("bad_upstream", "The provider did not answer with a stream.")
            error.usage = call.usage
            raise error
        return reply

    def _decoded(self, call: Call, upstream: Upstream, response: UpstreamResponse, body: bytes) -> Reply:
        try:
            if "json" not in media_type(response):
                raise UpstreamError("bad_upstream", "The provider's answer is not JSON.")
            if len(body) > upstream.body_limit:
                raise UpstreamError("response_too_large", TOO_LARGE)
            reply = upstream.provider.decode(call, response, body)
        except BaseException:
            response.close()
            raise
        headers = self._shown(response)
        response.close(reuse=True)
        if reply.headers:
            headers.update(reply.headers)
        reply.headers = headers
        return reply

    async def _relay(self, call: Call, upstream: Upstream, response: UpstreamResponse, watch: Watch) -> Reply:
        """An answer that is not ours to understand, and no events: as it comes, but never a page for data.

        A file's content is whatever it is. The beginning is waited for: what fails before that can be tried again, or elsewhere.
        """
        downloads, kind = is_download(call), media_type(response)
        if not downloads and kind.startswith("text/html"):
            raise UpstreamError("bad_upstream", "The provider answered with a page instead of data.")
        first = await beginning(call, response, upstream.provider, upstream.body_limit, watch)
        watch.flow()
        headers = shown_of_download(response) if downloads else self._shown(response)
        mask = None if downloads or upstream.mask is None or not is_text(kind) else MaskedBody(upstream.mask)
        is_unpaid = READ in call.notes
        is_charged = is_unpaid or (call.operation in CHARGED and call.method == "POST")
        limit = _LARGE_LIMIT if is_unpaid or call.operation == "images" else _ACCOUNT_LIMIT
        copy = Copy(limit) if is_charged and "json" in kind else None
        failed = partial(self._note, call, call.attempts[-1])
        reply = Reply(response.status, headers, stream=relayed(first, response, watch, failed, mask, copy))
        length = response.headers.get("content-length")
        if length is not None and "content-encoding" not in response.headers:
            reply.headers["content-length"] = length
        if response.status == 201 and (location := made_at(call, response)):
            reply.headers["location"] = location
        reply.on_close(partial(_release, response, watch))
        if copy is not None:
            # By its name: to ask whether it is `Accounting` costs some 8 us.
            reply.on_close(partial(_account, call, getattr(upstream.provider, "usage_of", None), copy))
        return reply

    async def _stream(self, call: Call, upstream: Upstream, response: UpstreamResponse, watch: Watch) -> Reply:
        decoder = upstream.provider.stream_decoder(call)
        if call.operation not in CHECKED:
            decoder = masked(decoder, upstream.mask)
        if call.stream and call.patience is not None:
            watch.listen()
        begun = await read_begun(call, response, decoder, upstream.body_limit, watch)
        call.tokens_seen = decoder.tokens
        watch.flow()
        call.first_token = call.last_token = watch.progress()
        stream = EventStream(call, response, decoder, watch, begun)
        if (floor := floor_of(call.timeouts)) is not None:
            stream.hold_to(Pace(floor, decoder, response, self._clock, self._sweeper))
        # Bound now: by the time the stream breaks, the last of the attempts may be another one, made beside this one.
        stream.report(partial(self._note, call, call.attempts[-1]), self._counting[upstream.name])
        headers = {**self._shown(response), "content-type": "text/event-stream; charset=utf-8"}
        reply = Reply(response.status, headers, b"", stream)
        reply.on_close(stream.close)
        return reply

    def _shown(self, response: UpstreamResponse) -> dict[str, str]:
        """What of an answer's headers the client may see. Which names these are is kept for all answers that have the same names."""
        headers = response.headers
        names = tuple(headers)
        shown = self._shown_of.get(names)
        if shown is None:
            if len(self._shown_of) >= _MOST_SHOWN:
                self._shown_of.clear()
            shown = self._shown_of[names] = tuple((name, told) for name in names if (told := shown_as(name)) is not None)
        found = {}
        for name, told in shown:  # a comprehension would be a call of its own
            found[told] = headers[name]
        return found


def _is_good(response: UpstreamResponse) -> bool:
    return 200 <= response.status < 300


def _spent(call: Call, attempt: Attempt, cancelled: CancelledError, response: UpstreamResponse | None) -> None:
    """Estimate what an attempt may have cost that was cancelled; nothing, if it had not been sent, or was refused."""
    if UNSENT not in cancelled.args and (response is None or _is_good(response)):
        attempt.usage = call.usage = call.estimated_usage()


def _account(call: Call, usage_of: Callable[[bytes], Usage | None] | None, copy: Copy, error: BaseException | None) -> None:
    """Take the usage of an answer that was passed on from who can read it; of one that was not passed on whole, estimate it else."""
    usage = usage_of(copy.body) if usage_of is not None else None
    call.usage = None if usage is None and error is None else call.accounted(usage)


def _release(response: UpstreamResponse, watch: Watch, error: BaseException | None) -> None:
    watch.stop()
    response.close(reuse=error is None)
