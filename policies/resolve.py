"""Which model, time limit, retries and parameters hold for a request: what its levels of configuration come to, put into force."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from proxy.core.ambiguity import require_one_model
from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import ClientError
from proxy.core.estimate import BYTES_PER_TOKEN, PROMPT, estimated_tokens
from proxy.core.hierarchy import (
    NOTHING_ASKED,
    REQUEST,
    SYSTEM,
    Asked,
    Hierarchy,
    described,
    for_embeddings,
    resolve,
    with_model,
    with_params,
    without_fallback,
    without_models,
)
from proxy.core.permissions import may_name
from proxy.core.protocols import Handler, Services, UserPreferences
from proxy.core.reply import Reply
from proxy.core.resolved import Preferences, Resolved
from proxy.core.splice import remove_member, set_member
from proxy.core.wishes import HEADERS, LENGTHS, MEMBER, Wishes, end_user_of, own_params, require_task_type, task_type_of, wishes_of

#: Operations whose answer is a model's text: the hierarchy's models and parameters are for these.
TEXT = frozenset({"chat", "completion", "responses"})

#: Operations that cannot do without a model.
NEEDS_MODEL = frozenset({"chat", "completion", "embedding"})

#: Outcomes that are kept: a client's names of models are without end.
_MOST_KEPT = 4096

#: At least, in a prompt that is a list of tokens' numbers, as legacy completions may have: a digit and a comma.
_BYTES_PER_TOKEN_ID = 2

_EXPLAIN_BYTES = 2048
_UNSET = Preferences()
_NO_WISHES = Wishes(NOTHING_ASKED)
_NOBODY = (None, None)
_ONLY_A_MODEL: tuple[Any, ...] = (None, None, None, {}, {})


class Levels:
    """The hierarchy for one kind of operation, with what it came to before.

    An outcome is forgotten when the user's preferences are another object than those that it was made from.
    """

    def __init__(self, hierarchy: Hierarchy, *, takes_users_models: bool = True) -> None:
        self.hierarchy = hierarchy
        self._takes_users_models = takes_users_models
        self._kept: dict[tuple[str | None, str | None, str | None, str | None], tuple[Preferences, Resolved]] = {}

    def of(self, who: tuple[str | None, str | None], task_type: str | None, preferences: Preferences, asked: Asked) -> Resolved:
        """The outcome for a (user, tier), the latter as `hierarchy.resolve` takes it. Raises ClientError (403 `model_not_allowed`)."""
        if asked is not NOTHING_ASKED and _beside_the_model(asked) != _ONLY_A_MODEL:
            return self._made(who[1], task_type, preferences, asked)
        return self.named(who, task_type, preferences, asked.model)

    def named(self, who: tuple[str | None, str | None], task_type: str | None, preferences: Preferences, model: str | None) -> Resolved:
        """The same for a request that sets its model, or nothing: the outcome is kept."""
        key = (*who, task_type, model)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is preferences:
            return kept[1]
        resolved = self._made(who[1], task_type, preferences, Asked(model))
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = (preferences, resolved)
        return resolved

    def _made(self, tier: str | None, task_type: str | None, preferences: Preferences, asked: Asked) -> Resolved:
        """A fallback that is not allowed is none, unless the request named it."""
        users = preferences if self._takes_users_models else without_models(preferences)
        resolved = resolve(self.hierarchy, task_type, users, tier, asked)
        if resolved.model is not None:
            self.allow(resolved.model)
        fallback = resolved.fallback_model
        if fallback is None or self.hierarchy.allows(fallback):
            return resolved
        if asked.fallback_model is not None:
            self.allow(fallback)
        return without_fallback(resolved)

    def allow(self, model: str) -> None:
        if not self.hierarchy.allows(model):
            message = f"The model {model[:200]!r} is not allowed here: llm.allowed_models of the configuration does not list it."
            raise ClientError(message, status=403, code="model_not_allowed", param="model")


class Resolve:
    """Sets `call.resolved`, `end_user`, `deadline` and `model`, and fills the body with what the model's parameters say.

    Without a section `llm`, with nothing that the request asks of us, and with nobody's preferences, there is nothing to do.
    """

    def __init__(self, hierarchy: Hierarchy | None, services: Services, may_have: Callable[[Principal, str], bool] = may_name) -> None:
        """`may_have` says whether somebody may have a model from anyone who serves it."""
        full = hierarchy or Hierarchy()
        self._may_have = may_have
        self._text = Levels(full)
        self._embeddings = Levels(for_embeddings(full), takes_users_models=False)
        self._others = Levels(Hierarchy(allowed_models=full.allowed_models))
        self._store = services.preferences
        self._is_idle = hierarchy is None and services.preferences is None
        self._named: dict[str | tuple[str | None, str] | None, Resolved] = {}

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        body, model = call.body, call.model
        asks = call.memo.get(self)
        if asks is None:
            asks = call.memo[self] = any(name in call.headers for name in HEADERS)
        asks = asks or MEMBER in body or (call.principal is not ANONYMOUS and is_held(call.principal))
        if asks or not self._is_idle:
            return self._resolved(call, call_next, asks=asks)
        # Without a coroutine of its own where there is nothing to resolve.
        if "user" in body or call.end_user is not None:
            call.end_user = end_user_of(call)
        resolved = self._named.get(model) if "metadata" not in body else None
        call.resolved = resolved if resolved is not None else self._as_named(model, task_type_of(call))
        if model is None and call.operation in NEEDS_MODEL:
            raise missing_model()
        return call_next(call)

    async def _resolved(self, call: Call, call_next: Handler, *, asks: bool) -> Reply:
        """`asks`: the request may set something beside its model, its task type and its user, or the key may not set all."""
        wishes = wishes_of(call) if asks or "metadata" in call.body else _NO_WISHES
        call.end_user = end_user_of(call)
        await self._settle(call, wishes)
        if call.model is None and call.operation in NEEDS_MODEL:
            raise missing_model()
        return await call_next(call)

    def _as_named(self, model: str | None, task_type: str | None) -> Resolved:
        """What comes of a model's name alone, and perhaps of a task type."""
        key = model if task_type is None else (model, task_type)
        resolved = self._named.get(key)
        if resolved is None:
            if len(self._named) >= _MOST_KEPT:
                self._named.clear()
            asked = NOTHING_ASKED if model is None else Asked(model=model)
            resolved = self._named[key] = resolve(Hierarchy(), task_type, _UNSET, None, asked)
        return resolved

    def levels(self, operation: str) -> Levels:
        return self._text if operation in TEXT else self._embeddings if operation == "embedding" else self._others

    async def preview(self, call: Call, task_type: str | None, model: str | None) -> Resolved:
        """What a chat request of this caller would get. Raises ClientError (403)."""
        levels = self._text
        require_task_type(task_type, call.principal)
        chosen = None if model == levels.hierarchy.alias or not may_set(call, "model") else model
        who, preferences = await self._account(levels, call)
        resolved = levels.of(who, task_type, preferences, Asked(model=chosen))
        if resolved.model is None:
            require_choice(call, model)
        return resolved

    async def _settle(self, call: Call, wishes: Wishes) -> None:
        levels = self.levels(call.operation)
        if levels.hierarchy.allowed_models is not None and call.model is not None and call.raw:
            require_one_model(call.raw, call.model)
        who, preferences = await self._account(levels, call)
        resolved = outcome_of(levels, call, wishes, who, preferences)
        if levels is self._text:
            own = own_params(call)
            if own and (wishes.explain or resolved.params or resolved.source != REQUEST):
                resolved = with_params(resolved, own)
            if resolved.context_window is not None:
                resolved = fitting(levels.hierarchy, resolved, call, self._may_have)
        if resolved.model is None:
            require_choice(call, call.model)
        _put(call, resolved, levels.hierarchy)
        if wishes.explain:
            call.notes["explain"] = explained(resolved)

    async def _account(self, levels: Levels, call: Call) -> tuple[tuple[str | None, str | None], Preferences]:
        """Whose preferences count, with that one's tier, and what they are. Nobody's for a stranger."""
        named, principal = call.on_behalf, call.principal
        if named is not None:
            # The tier counts for every operation: targets may be kept for it.
            stored = await self._preferences(named)
            return (named, stored.tier), _UNSET if levels is self._others else stored
        if principal is ANONYMOUS:
            return _NOBODY, _UNSET
        own = _UNSET if levels is self._others else await self._preferences(principal.id)
        return (principal.id, principal.tier or ""), own

    async def _preferences(self, user: str) -> Preferences:
        store: UserPreferences | None = self._store
        if store is None:
            return _UNSET
        found = store.recall(user)
        if found is None:
            found = await store.find(user)
        return found


def outcome_of(levels: Levels, call: Call, wishes: Wishes, who: tuple[str | None, str | None], preferences: Preferences) -> Resolved:
    """The outcome for a call.

    OpenAI's `model` is the request's choice, unless it is the alias, or the key may not choose, or ours was said beside it.
    """
    model, asked = call.model, wishes.asked
    if model is not None and (model == levels.hierarchy.alias or asked.model is not None or not may_set(call, "model")):
        model = None
    if asked is NOTHING_ASKED:
        return levels.named(who, wishes.task_type, preferences, model)
    if model is not None:
        asked = replace(asked, model=model)
    return levels.of(who, wishes.task_type, preferences, asked)


def _beside_the_model(asked: Asked) -> tuple[Any, ...]:
    return asked.timeout, asked.max_retries, asked.fallback_model, asked.params, asked.timeouts


def missing_model() -> ClientError:
    return ClientError("You must provide the parameter 'model', a string.", param="model", code="missing_required_parameter")


def may_set(call: Call, name: str) -> bool:
    fields = call.principal.may_set
    return fields is None or name in fields


def require_choice(call: Call, model: str | None) -> None:
    """Raises ClientError (403) where nothing but the request names a model, and the key may not choose."""
    if model is not None and not may_set(call, "model"):
        raise ClientError("This key may not choose its model, and none is configured for it.", status=403, code="permission_denied")


def is_held(principal: Principal) -> bool:
    """Whether there is anything that it may not set."""
    return principal.may_set is not None or principal.task_types is not None


# ------------------------------------------------------------------------------------------------------------------------ into force
def _put(call: Call, resolved: Resolved, hierarchy: Hierarchy) -> None:
    call.resolved = resolved
    if resolved.timeout is not None:
        ends = call.started + resolved.timeout
        call.deadline = ends if call.deadline is None else min(call.deadline, ends)
    if resolved.model is not None and resolved.model != call.model:
        _name(call, resolved.model)
    if (resolved.params or hierarchy.params) and call.raw and _takes_params(call):
        filled = fill(call, resolved.params)
        if hierarchy.params:
            call.refill = partial(_refill, hierarchy, resolved, filled)


def _name(call: Call, model: str) -> None:
    """Give the call its model. A `model` that stands in the body is replaced where the request is encoded, as any public name is."""
    if call.content is not None:
        if call.model is not None:
            call.content = call.content.named(model)
            call.model = model
    elif call.body.get("model") is not None:
        call.model = model
    elif call.operation in NEEDS_MODEL or (call.operation == "responses" and "prompt" not in call.body):
        call.raw = set_member(call.raw, "model", orjson.dumps(model), present="model" in call.body)
        call.body["model"] = model
        call.model = model


def _takes_params(call: Call) -> bool:
    return call.operation in ("chat", "completion") or (call.operation == "responses" and call.path == "/responses")


def fill(call: Call, params: Mapping[str, Any]) -> dict[str, bool]:
    """Set the members that the body leaves unset, in its bytes too. The longest answer has three names; one of them is enough.

    What is returned are the members that were set, and whether each had been there, as null.
    """
    body = call.body
    filled = {}
    for name, value in params.items():
        member = name
        if name == "max_tokens":
            if any(body.get(length) is not None for length in LENGTHS):
                continue
            member = "max_output_tokens" if call.operation == "responses" else name
        elif body.get(name) is not None:
            continue
        filled[member] = member in body
        call.raw = set_member(call.raw, member, orjson.dumps(value), present=member in body)
        body[member] = value
    return filled


def _refill(hierarchy: Hierarchy, first: Resolved, filled: dict[str, bool], call: Call, model: str) -> None:
    """The parameters of the model that answers instead, where the request does not set them, for what those of the first one `filled`.

    `first` is what held for that. What is told of the call follows, but for the model that was chosen.
    """
    for member, was_there in filled.items():
        call.raw = set_member(call.raw, member, b"null", present=True) if was_there else remove_member(call.raw, member)
    kept = {name: value for name, value in call.body.items() if name not in filled}
    call.body = {**kept, **{member: None for member, was_there in filled.items() if was_there}}
    resolved = call.resolved = first if model == first.model else _instead(hierarchy, first, call, model)
    if "explain" in call.notes:
        call.notes["explain"] = explained(resolved)
    call.refill = partial(_refill, hierarchy, first, fill(call, resolved.params))


def _instead(hierarchy: Hierarchy, first: Resolved, call: Call, model: str) -> Resolved:
    """`first` with the parameters of another model, and those that the request sets itself."""
    resolved = with_model(hierarchy, first, model, first.sources.get("model", SYSTEM))
    own = own_params(call)
    return replace(with_params(resolved, own) if own else resolved, model=first.model or model)


# -------------------------------------------------------------------------------------------------------------------- context window
def fitting(hierarchy: Hierarchy, resolved: Resolved, call: Call, may_have: Callable[[Principal, str], bool]) -> Resolved:
    """`resolved`, or a model with more room, where the prompt is too long for its own.

    Raises ClientError (400 `context_length_exceeded`) where there is none.
    """
    window = resolved.context_window
    least = _BYTES_PER_TOKEN_ID if call.operation == "completion" else BYTES_PER_TOKEN
    if window is None or len(call.raw) <= window * least:
        return resolved
    tokens = estimated_tokens(call.body)
    if tokens <= window:
        return resolved
    for model, source in ((hierarchy.larger_model, SYSTEM), (resolved.fallback_model, resolved.sources.get("fallback_model", SYSTEM))):
        room = hierarchy.context_windows.get(model, 0) if model is not None else 0
        if model is not None and room >= tokens and hierarchy.allows(model) and may_have(call.principal, model):
            call.notes["context_window"] = "larger_model"
            return with_model(hierarchy, resolved, model, source)
    message = f"This model's maximum context length is {window} tokens. Your prompt has about {tokens} tokens. Please shorten it."
    param = next((name for name in PROMPT if name in call.body), None)
    raise ClientError(message, code="context_length_exceeded", param=param)


# --------------------------------------------------------------------------------------------------------------------------- account
def explained(resolved: Resolved) -> str:
    """JSON in ASCII, at most 2048 bytes: each value with its level, `{"model":["fast","user"],...}`."""
    values = {name: [_short(found["value"]), found["source"]] for name, found in described(resolved).items()}
    account: dict[str, Any] = {"source": resolved.source, "values": values}
    if resolved.task_type is not None:
        account |= {"task_type": _short(resolved.task_type), "known_task_type": resolved.is_known_task_type}
    text = json.dumps(account, separators=(",", ":"))
    return text if len(text) <= _EXPLAIN_BYTES else json.dumps({"source": resolved.source})


def _short(value: Any) -> Any:
    return value[:100] if isinstance(value, str) else value
