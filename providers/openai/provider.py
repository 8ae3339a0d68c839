"""The pass-through provider. Only what must differ is changed in the client's bytes: the model's name, and the request for usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from providers.openai.answer import reported_usage
from providers.openai.errors import error_beside_success, error_in_body, error_of_status
from providers.openai.settings import OpenAISettings
from providers.openai.stream import ChatDecoder, Endings
from providers.openai.typed_events import TypedEventDecoder
from providers.openai.usage import read_total, read_usage
from providers.openai.value import value_of
from proxy.core.call import Call, Credential, Target, Usage
from proxy.core.errors import UpstreamError
from proxy.core.estimate import tokens_of
from proxy.core.protocols import ResponseHead, StreamDecoder, UpstreamRequest
from proxy.core.reply import Reply
from proxy.core.splice import member_spans, set_member, with_first
from proxy.core.sse import BOM

#: Client headers that mean something to the provider. Everything else stays here, credentials and hop-by-hop headers above all.
FORWARDED = (
    "accept",
    "content-type",
    "openai-beta",
    "openai-safety-identifier",
    "idempotency-key",
    "range",
    "if-range",
    "traceparent",
    "tracestate",
    "x-client-request-id",
)

#: Paths that vLLM has beside `/v1` and not under it (`/rerank` and `/score` it has in both places).
#: Source: https://docs.vllm.ai/en/stable/serving/online_serving/
BESIDE = frozenset({"/classify", "/pooling", "/tokenize", "/detokenize"})

#: Operations whose stream ends with `[DONE]` after a finish_reason, and whose usage must be asked for.
CHAT_STREAMS = frozenset({"chat", "completion"})

#: Mistral's: a legacy completion's request that knows no `stream_options`, and a chat's answer, with its usage in the last event.
#: Source: `FIMCompletionStreamRequest` and `CompletionChunk` of https://github.com/mistralai/client-python
_FILL_IN = "/fim/completions"

#: Bytes of a body of which objects may be made to find its usage.
_SMALL = 256 * 1024

#: Of so many models it is remembered how their streams end.
_MOST_MODELS = 1024

_USAGE = b'"usage"'
_USAGE_ASKED = b'"stream_options":{"include_usage":true},'


@dataclass(frozen=True, slots=True)
class _Sent:
    """What is sent for a client's head, with a credential: the same for every request that has both. `kept` is the transport's."""

    credential: Credential | None
    path: str
    query: str
    url: str
    headers: dict[str, str]
    kept: dict[Any, bytes]


class OpenAI:
    """Good for every server that speaks OpenAI's dialect. Source: https://platform.openai.com/docs/api-reference"""

    Settings = OpenAISettings

    def __init__(self, settings: OpenAISettings) -> None:
        self.settings = settings
        self._stream_usage = settings.stream_usage
        self._event_limit = settings.limits.event
        self._endings: dict[tuple[str, str | None], Endings] = {}
        self.base_url = settings.base_url
        self._root = settings.base_url.removesuffix("/v1")
        self._forwarded = tuple(dict.fromkeys(FORWARDED + settings.forward_headers))
        self._headers = {"accept-encoding": "identity", "user-agent": "comporta"}
        if settings.organization:
            self._headers["openai-organization"] = settings.organization
        if settings.project:
            self._headers["openai-project"] = settings.project
        self._headers.update({name.lower(): value for name, value in settings.headers.items()})

    def encode(self, call: Call, target: Target) -> UpstreamRequest:
        memo, credential = call.memo, target.credential
        sent: _Sent | None = memo.get(self)
        if sent is None or sent.credential is not credential or sent.path is not call.path or sent.query is not call.query:
            sent = memo[self] = self._sent(call, target)
        if call.content is not None:
            renamed = target.model is not None and call.model is not None and target.model != call.model
            content = call.content.named(target.model) if renamed and target.model else call.content
            return UpstreamRequest(call.method, sent.url, sent.headers, content)
        raw, body, model = call.raw, call.body, target.model
        if model is not None and body.get("model") != model and "model" in body:
            raw = set_member(raw, "model", orjson.dumps(model), present=True)
        if call.stream and self._stream_usage and call.operation in CHAT_STREAMS and call.path != _FILL_IN:
            # A body of a stream has a member at least: the one that says so.
            raw = with_first(raw, _USAGE_ASKED) if "stream_options" not in body else _asking_for_usage(raw, body)
        return UpstreamRequest(call.method, sent.url, sent.headers, raw, sent.kept)

    def _sent(self, call: Call, target: Target) -> _Sent:
        headers = self._headers.copy()
        if target.credential is not None:
            headers["authorization"] = "Bearer " + target.credential.secret
        client = call.headers
        for name in self._forwarded:
            value = client.get(name)
            if value is not None:
                headers[name] = value
        if "connection" in client:
            for name in client["connection"].lower().split(","):
                # What the client names there is for one hop, and this hop is us.
                if name.strip() in self._forwarded:
                    headers.pop(name.strip(), None)
        url = (self._root if call.path in BESIDE else self.base_url) + call.path
        if call.query:
            url = f"{url}?{call.query}"
        return _Sent(target.credential, call.path, call.query, url, headers, {})

    def decode(self, call: Call, response: ResponseHead, body: bytes) -> Reply:
        usage = reported_usage(body, with_choices=call.operation in CHAT_STREAMS)
        if usage is None:
            body = body.removeprefix(BOM)  # which nobody may send, and not every client passes over (RFC 8259, 8.1)
            usage = self._usage(call, body)
        call.usage = usage
        return Reply(response.status, None, body)

    def _usage(self, call: Call, body: bytes) -> Usage | None:
        """The usage of an answer, whatever it is. Raises UpstreamError for one that is not good."""
        try:
            answer = value_of(body)
        except ValueError as error:
            raise UpstreamError("invalid_response", "The provider's answer is not valid JSON.", detail=str(error)) from None
        if type(answer) is not dict:
            raise UpstreamError("invalid_response", "The provider's answer is not a JSON object.")
        usage = read_usage(answer.get("usage"), of_text=call.operation in CHAT_STREAMS)
        failed = call.operation == "responses" and answer.get("status") == "failed"
        if failed or answer.get("error"):
            raise _charged(error_in_body(answer.get("error"), of_response=failed), usage)
        if call.operation == "embedding":
            return call.accounted(usage or read_total(answer.get("usage")))
        if call.operation in CHAT_STREAMS:
            choices = answer.get("choices")
            if not choices or type(choices) is not list:
                nothing = error_beside_success(answer) or UpstreamError("invalid_response", "The provider's answer holds no choices.")
                raise _charged(nothing, usage)
            return usage if usage is not None and usage.reported else call.accounted(usage, _estimated(choices))
        return usage if usage is None else call.accounted(usage)

    def usage_of(self, body: bytes) -> Usage | None:
        for part in (body, _end_of(body)):
            found = reported_usage(part, with_choices=False)
            if found is not None:
                return found
            if len(part) <= _SMALL:
                try:
                    answer = value_of(part)
                except ValueError:
                    continue
                usage = answer.get("usage") if type(answer) is dict else None
                return read_usage(usage) or read_total(usage)
        return None

    def decode_error(self, response: ResponseHead, body: bytes) -> UpstreamError:
        return error_of_status(response.status, response.headers, body)

    def stream_decoder(self, call: Call) -> StreamDecoder:
        limit = self._event_limit
        if call.operation in CHAT_STREAMS:
            body = call.body
            choices = _choices(body) if "n" in body or "prompt" in body else 1
            # Some servers leave the reason out behind calls of tools alone.
            may_call = "tools" in body or "functions" in body
            endings = None if may_call or call.target is None else self._endings_of(call.operation, call.target.model)
            wants_usage = not self._stream_usage or call.path == _FILL_IN or _asks_for_usage(body)
            return ChatDecoder(limit, choices=choices, wants_usage=wants_usage, endings=endings)
        at_once = call.body.get("background") is True
        return TypedEventDecoder(limit, terminal=call.operation == "responses", at_once=at_once, subscribed=call.operation == "agents")

    def _endings_of(self, operation: str, model: str | None) -> Endings:
        found = self._endings.get((operation, model))
        if found is None:
            if len(self._endings) >= _MOST_MODELS:
                self._endings.clear()  # clients make names up
            found = self._endings[operation, model] = Endings()
        return found


def _charged(error: UpstreamError, usage: Usage | None) -> UpstreamError:
    """`error` with what its answer says that it cost."""
    error.usage = usage
    return error


def _end_of(body: bytes) -> bytes:
    """An object of an answer's members from its usage on. It is none where that usage is not the answer's own: it is then closed twice."""
    return b"{" + body[body.rfind(_USAGE) :]


def _asking_for_usage(raw: bytes, body: dict[str, Any]) -> bytes:
    """The bytes of a request with options for its stream, of which usage is one."""
    options = body.get("stream_options")
    if not options:
        return set_member(raw, "stream_options", b'{"include_usage":true}', present=True)
    if options.get("include_usage") is True:
        return raw
    start, end = member_spans(raw, "stream_options")[-1]
    return raw[:start] + set_member(raw[start:end], "include_usage", b"true", present="include_usage" in options) + raw[end:]


def _asks_for_usage(body: dict[str, Any]) -> bool:
    """In OpenAI's way, or in OpenRouter's. Source: https://openrouter.ai/docs/use-cases/usage-accounting"""
    options, usage = body.get("stream_options"), body.get("usage")
    return (type(options) is dict and options.get("include_usage") is True) or (type(usage) is dict and usage.get("include") is True)


def _choices(body: dict[str, Any]) -> int:
    """How many choices an answer has: `n` for each prompt, of which only a legacy completion can have several."""
    count, prompts = body.get("n"), body.get("prompt")
    several = len(prompts) if isinstance(prompts, list) and prompts and isinstance(prompts[0], (str, list)) else 1
    return several * count if isinstance(count, int) and count > 0 else several


def _estimated(choices: list[Any]) -> int:
    """Tokens by the length of what is said, thought and called, where a provider reports none."""
    said: list[Any] = []
    for choice in choices:
        if isinstance(choice, dict):
            message = choice.get("message")
            said += _parts_of(message) if isinstance(message, dict) else [choice.get("text")]
    return tokens_of(said)


def _parts_of(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    functions = [each.get("function") for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
    functions.append(message.get("function_call"))
    thought = message.get("reasoning_content") or message.get("reasoning")  # some say it under both names
    return [message.get("content"), message.get("refusal"), message.get("audio"), thought, *functions]
