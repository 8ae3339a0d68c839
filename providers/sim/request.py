"""What a request asks of the simulated model, whichever endpoint it came through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.sim.refusal import (
    Check,
    check_fields,
    empty_array,
    instance,
    integer,
    missing,
    number,
    one_of,
    too_long,
    wrong_type,
    wrong_value,
)
from providers.sim.text import count_tokens
from providers.sim.tools import NO_TOOLS, Tools, read_tools
from proxy.core.errors import ClientError

MOST_CHOICES = 128
_MOST_STOPS = 4
_IMAGE_TOKENS = 85
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_RESULTS = frozenset({"tool", "function"})


@dataclass(frozen=True, slots=True)
class Format:
    """What the answer's text must be: any JSON object, or an instance of `schema`. `param` is where the schema stands in the request."""

    schema: Any = None
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, checked.

    prompt    everything that was said, for the seed
    subject   what the answer is about: the last thing that the user said
    limit     most tokens per choice
    top_logprobs  alternatives per token; None: no log probabilities are wanted
    """

    model: str
    prompt: str
    subject: str
    prompt_tokens: int
    seed: int | None = None
    n: int = 1
    limit: int | None = None
    stops: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    top_logprobs: int | None = None
    tools: Tools = NO_TOOLS
    format: Format | None = None


@dataclass(slots=True)
class Conversation:
    """Messages as they are read. `answered` says whether the last one is a tool's result."""

    texts: list[str]
    tokens: int = 3
    subject: str = ""
    answered: bool = False


SHARED_CHECKS: dict[str, Check] = {
    "model": instance(str),
    "n": integer(1, MOST_CHOICES),
    "max_tokens": integer(1),
    "seed": integer(),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "stream": instance(bool),
    "stream_options": instance(dict),
    "logit_bias": instance(dict),
    "user": instance(str),
}

_CHECKS: dict[str, Check] = {
    **SHARED_CHECKS,
    "max_completion_tokens": integer(1),
    "logprobs": instance(bool),
    "top_logprobs": integer(0, 20),
    "parallel_tool_calls": instance(bool),
    "response_format": instance(dict),
    "reasoning_effort": instance(str),
    "modalities": instance(list),
    "metadata": instance(dict),
    "tools": instance(list),
    "functions": instance(list),
}


def read_chat(body: Mapping[str, Any]) -> Ask:
    """The ask of a body for `/chat/completions`. Raises ClientError.

    https://platform.openai.com/docs/api-reference/chat/create
    """
    check_fields(body, _CHECKS)
    talk = read_messages(body.get("messages"))
    limit = body.get("max_completion_tokens")
    if limit is None:
        limit = body.get("max_tokens")
    tools = read_tools(body, talk.subject, answered=talk.answered)
    return Ask(
        model=body.get("model") or "sim",
        prompt="\x1e".join(talk.texts),
        subject=talk.subject,
        prompt_tokens=talk.tokens + tools.prompt_tokens,
        seed=body.get("seed"),
        n=body.get("n") or 1,
        limit=limit,
        stops=read_stops(body.get("stop")),
        stream=bool(body.get("stream")),
        include_usage=read_include_usage(body),
        top_logprobs=_read_logprobs(body),
        tools=tools,
        format=read_format(body.get("response_format")),
    )


def read_messages(messages: Any) -> Conversation:
    """Raises ClientError for what is no list of messages."""
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise empty_array("messages")
    talk = Conversation([])
    for index, message in enumerate(messages):
        _read_message(message, f"messages[{index}]", talk)
    return talk


def _read_message(message: Any, param: str, talk: Conversation) -> None:
    if not isinstance(message, dict):
        raise wrong_type(param, "an object", message)
    role = message.get("role")
    if role is None:
        raise missing(f"{param}.role")
    if role not in _ROLES:
        raise wrong_value(f"{param}.role", role, _ROLES)
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise missing(f"{param}.tool_call_id")
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    if content is None and role != "assistant":
        raise missing(f"{param}.content")
    text, tokens = read_content(content, f"{param}.content")
    talk.texts += (role, text)
    if calls:
        talk.texts.append(str(calls))
        tokens += count_tokens(str(calls))
    talk.tokens += tokens + 3
    talk.answered = role in _RESULTS
    if role == "user" or not talk.subject:
        talk.subject = text


def read_content(content: Any, param: str) -> tuple[str, int]:
    """The text of a message's content and how many tokens it has, pictures and sounds included. Raises ClientError."""
    if content is None:
        return "", 0
    if isinstance(content, str):
        return content, count_tokens(content)
    if not isinstance(content, list):
        raise wrong_type(param, "a string or an array of objects", content)
    texts = [_read_part(part, f"{param}[{index}]") for index, part in enumerate(content)]
    return "\n".join(text for text, _ in texts), sum(tokens for _, tokens in texts)


_PARTS: dict[str, str] = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Parts that are text, and where they have it."""

_MEDIA: dict[str, str] = {
    "image_url": "image_url",
    "input_audio": "input_audio",
    "file": "file",
    "input_image": "image_url",
    "input_file": "",
}
"""Parts that are not, and what they must have."""


def _read_part(part: Any, param: str) -> tuple[str, int]:
    if not isinstance(part, dict):
        raise wrong_type(param, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    if kind in _PARTS:
        text = part.get(_PARTS[kind])
        if text is None:
            raise missing(f"{param}.{_PARTS[kind]}")
        if not isinstance(text, str):
            raise wrong_type(f"{param}.{_PARTS[kind]}", "a string", text)
        return text, count_tokens(text)
    if kind not in _MEDIA:
        raise wrong_value(f"{param}.type", kind, ("text", "image_url", "input_audio", "refusal", "file"))
    if _MEDIA[kind] and part.get(_MEDIA[kind]) is None and part.get("file_id") is None:
        raise missing(f"{param}.{_MEDIA[kind]}")
    # Not looked at: a picture weighs what a small one does.
    return "", _IMAGE_TOKENS


def read_stops(stop: Any) -> tuple[str, ...]:
    if stop is None or stop == "":
        return ()
    if isinstance(stop, str):
        return (stop,)
    if not isinstance(stop, list):
        raise wrong_type("stop", "a string or an array of strings", stop)
    if len(stop) > _MOST_STOPS:
        raise too_long("stop", _MOST_STOPS, len(stop))
    for index, text in enumerate(stop):
        if not isinstance(text, str):
            raise wrong_type(f"stop[{index}]", "a string", text)
    return tuple(filter(None, stop))


def read_include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not body.get("stream"):
        raise ClientError("The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options")
    check_fields(options, {"include_usage": instance(bool)})
    return bool(options.get("include_usage"))


def _read_logprobs(body: Mapping[str, Any]) -> int | None:
    top = body.get("top_logprobs")
    if body.get("logprobs"):
        return top or 0
    if top:
        raise ClientError("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    return None


_is_format = one_of("text", "json_object", "json_schema")


def read_format(given: Mapping[str, Any] | None, param: str = "response_format", nested: str = "json_schema") -> Format | None:
    """The format that is asked for; `nested` is the member that holds name and schema. Raises ClientError."""
    if given is None:
        return None
    kind = given.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    _is_format(f"{param}.type", kind)
    if kind != "json_schema":
        return Format(param=param) if kind == "json_object" else None
    inner = given.get(nested) if nested else given
    where = f"{param}.{nested}" if nested else param
    if inner is None:
        raise missing(where)
    if not isinstance(inner, dict):
        raise wrong_type(where, "an object", inner)
    if inner.get("name") is None:
        raise missing(f"{where}.name")
    schema = inner.get("schema")
    if schema is not None and not isinstance(schema, (dict, bool)):
        raise wrong_type(f"{where}.schema", "an object", schema)
    return Format(True if schema is None else schema, f"{where}.schema")


def iterate_prompts(prompt: Any) -> Iterator[str]:
    """The prompts of a legacy completion: a text, texts, token numbers, or lists of them. Raises ClientError."""
    if prompt is None or isinstance(prompt, str):
        yield prompt or ""
        return
    if not isinstance(prompt, list):
        raise wrong_type("prompt", "a string, an array of strings, or an array of integers", prompt)
    if not prompt:
        raise empty_array("prompt")
    if all(type(token) is int for token in prompt):
        yield " ".join(map(str, prompt))
        return
    for index, item in enumerate(prompt):
        if isinstance(item, str):
            yield item
        elif isinstance(item, list) and item and all(type(token) is int for token in item):
            yield " ".join(map(str, item))
        else:
            raise wrong_type(f"prompt[{index}]", "a string or an array of integers", item)
