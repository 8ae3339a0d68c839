"""Which tools the simulated model calls, and with what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from providers.sim.refusal import missing, wrong_type, wrong_value
from proxy.core.errors import ClientError

_NOT_WORD = re.compile(r"[\W_]+")
_READ_FOR_NAMES = 16_384
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that may be called. `parameters` is a JSON Schema; `custom` ones take free text instead. `param` is the schema's place."""

    name: str
    parameters: Any
    param: str
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request: `chosen` are to be called, in this order. `legacy`: asked for by `functions`, answered by `function_call`."""

    chosen: tuple[Tool, ...] = ()
    legacy: bool = False
    prompt_tokens: int = 0


NO_TOOLS = Tools()


def read_tools(body: Mapping[str, Any], subject: str, *, answered: bool) -> Tools:
    """What of `tools`, `tool_choice` and their forerunners is to be called in answer to `subject`. Raises ClientError.

    A choice that demands a call gets one. Otherwise a tool is called that the subject names, unless a tool has just `answered`.
    """
    legacy = not body.get("tools") and bool(body.get("functions"))
    listed = body.get("functions" if legacy else "tools")
    choice = body.get("function_call" if legacy else "tool_choice")
    if not listed:
        if choice not in (None, "none", "auto"):
            message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
            raise ClientError(message, param="tool_choice")
        return NO_TOOLS
    tools = [_read_function(entry, f"functions[{i}]") if legacy else _read_tool(entry, f"tools[{i}]") for i, entry in enumerate(listed)]
    known = [tool for tool in tools if tool is not None]
    parallel = not legacy and body.get("parallel_tool_calls") is not False
    chosen = _choose(known, choice, "function_call" if legacy else "tool_choice", "" if answered else subject)
    if answered and choice in (None, "auto"):
        chosen = []
    return Tools(tuple(chosen if parallel else chosen[:1]), legacy, len(orjson.dumps(listed)) // _BYTES_PER_TOKEN)


def _read_tool(entry: Any, param: str) -> Tool | None:
    if not isinstance(entry, dict):
        raise wrong_type(param, "an object", entry)
    kind = entry.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    if kind not in ("function", "custom"):
        # Built-in tools of the Responses API, such as web search: known to be there, never used.
        if "function" in entry or "custom" in entry:
            raise wrong_value(f"{param}.type", kind, ("function", "custom"))
        return None
    # The Responses API writes the members of a function beside its type.
    flat = "name" in entry
    return _read_function(entry if flat else entry.get(kind), param if flat else f"{param}.{kind}", custom=kind == "custom")


def _read_function(entry: Any, param: str, *, custom: bool = False) -> Tool:
    if entry is None:
        raise missing(param)
    if not isinstance(entry, dict):
        raise wrong_type(param, "an object", entry)
    name = entry.get("name")
    if name is None:
        raise missing(f"{param}.name")
    if not isinstance(name, str):
        raise wrong_type(f"{param}.name", "a string", name)
    parameters = entry.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong_type(f"{param}.parameters", "an object", parameters)
    return Tool(name, parameters or {"type": "object", "properties": {}}, f"{param}.parameters", custom)


def _choose(tools: list[Tool], choice: Any, param: str, subject: str) -> list[Tool]:
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            return _choose_allowed(tools, choice, param, subject)
        return [_named(tools, choice, param)]
    if choice not in (None, "none", "auto", "required"):
        if not isinstance(choice, str):
            raise wrong_type(param, "a string or an object", choice)
        raise wrong_value(param, choice, ("none", "auto", "required"))
    if choice == "none" or not tools:
        return []
    mentioned = _mentioned(tools, subject)
    return mentioned or ([tools[0]] if choice == "required" else [])


def _choose_allowed(tools: list[Tool], choice: dict[str, Any], param: str, subject: str) -> list[Tool]:
    inner = choice.get("allowed_tools", choice)
    entries = inner.get("tools") if isinstance(inner, dict) else None
    if not isinstance(entries, list):
        raise missing(f"{param}.allowed_tools.tools")
    allowed = [_named(tools, entry, param) for entry in entries if isinstance(entry, dict)]
    return _choose(allowed, inner.get("mode", "auto"), param, subject)


def _named(tools: list[Tool], choice: dict[str, Any], param: str) -> Tool:
    inner = choice.get("function") or choice.get("custom") or choice
    name = inner.get("name") if isinstance(inner, dict) else None
    if name is None:
        raise missing(f"{param}.function.name" if param == "tool_choice" else f"{param}.name")
    for tool in tools:
        if tool.name == name:
            return tool
    raise ClientError(f"Tool choice '{name}' not found in 'tools' parameter.", param=param)


def _mentioned(tools: list[Tool], subject: str) -> list[Tool]:
    if not subject:
        return []
    said = _words(subject[:_READ_FOR_NAMES])
    return [tool for tool in tools if (name := _words(tool.name)).strip() and name in said]


def _words(text: str) -> str:
    """Lower-case words between single spaces, so that `get_weather` is found in "Get weather, please"."""
    return f" {_NOT_WORD.sub(' ', text.lower()).strip()} "
