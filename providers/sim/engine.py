"""The simulated server without its clock and its wire: a request in, an answer out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from providers.sim.answer import choices_of
from providers.sim.chat import chat_answer
from providers.sim.completion import completion_answer
from providers.sim.embedding import embedding_answer
from providers.sim.listing import model_answer, model_list, moderation_answer
from providers.sim.request import read_chat
from providers.sim.responses import responses_answer
from providers.sim.settings import SimSettings
from providers.sim.wire import Answer, Stamp, refusal
from proxy.core.errors import ClientError

_MODEL_PREFIX = "/models/"


class SimEngine:
    """Answers as an OpenAI-compatible server would, from `settings` alone: the same request and stamp give the same bytes.

    The faults and the pace of `settings` are the transport's; here every answer is whole and at once.
    """

    def __init__(self, settings: SimSettings) -> None:
        self._settings = settings
        self._posts: dict[str, Callable[[Mapping[str, Any], Stamp], Answer]] = {
            "/chat/completions": self._chat,
            "/completions": lambda body, stamp: completion_answer(body, stamp, settings.length, settings.seed),
            "/embeddings": lambda body, stamp: embedding_answer(body, settings.dimensions),
            "/moderations": moderation_answer,
            "/responses": lambda body, stamp: responses_answer(body, stamp, settings.length, settings.seed),
        }

    def answer(self, method: str, path: str, body: bytes | Mapping[str, Any], stamp: Stamp) -> Answer:
        """What a server says to `method` `path`, which begins after `/v1`; `body` is JSON or what it holds. Errors are answers."""
        try:
            if method == "GET" and path == "/models":
                return model_list()
            if method == "GET" and path.startswith(_MODEL_PREFIX):
                return model_answer(unquote(path[len(_MODEL_PREFIX) :]))
            respond = self._posts.get(path)
            if respond is None:
                raise ClientError(f"Invalid URL ({method} /v1{path}): the simulated provider has no such endpoint.", status=404)
            if method != "POST":
                raise ClientError(f"Not allowed to {method} on /v1{path}.", status=405, code="method_not_supported")
            return respond(_parsed(body), stamp)
        except ClientError as error:
            return refusal(error)

    def takes(self, method: str, path: str) -> bool:
        """Whether the body of such a request is read."""
        return method == "POST" and path in self._posts

    def _chat(self, body: Mapping[str, Any], stamp: Stamp) -> Answer:
        ask = read_chat(body)
        return chat_answer(ask, choices_of(ask, self._settings.length, self._settings.seed), stamp)


def _parsed(body: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(body, bytes):
        return body
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ClientError("We could not parse the JSON body of your request. The API expects a JSON object.", code="invalid_json")
    return value
