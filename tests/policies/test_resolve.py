"""What the hierarchy comes to, put into force on a call."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from policies.resolve import Resolve
from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import ClientError
from proxy.core.estimate import estimated_tokens
from proxy.core.hierarchy import Hierarchy
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.reply import Reply
from proxy.core.resolved import Preferences
from proxy.routing.conditions import holds
from tests.core.doubles import HandClock, make_call
from tests.core.test_hierarchy import SYSTEM

STRICT = replace(SYSTEM, alias="auto", allowed_models=("llama3.2:*",))
USER = Principal(id="user_1", key="k")
#: What `MESSAGES` in a request's text stands for.
MESSAGES = '"messages": [{"role": "user", "content": "hi"}]'


class Store:
    """Preferences by user; `recall` knows those that were asked for before."""

    def __init__(self, **known: Preferences) -> None:
        self.known = known
        self.found: list[str] = []

    def recall(self, user: str) -> Preferences | None:
        return self.known.get(user) if user in self.found else None

    async def find(self, user: str) -> Preferences:
        self.found.append(user)
        return await self.read(user)

    async def read(self, user: str) -> Preferences:
        return self.known.get(user, Preferences())

    async def put(self, user: str, preferences: Preferences) -> None:
        self.known[user] = preferences

    async def delete(self, user: str) -> None:
        del self.known[user]


def policy(hierarchy: Hierarchy | None = STRICT, store: Store | None = None) -> Resolve:
    return Resolve(hierarchy, Services(HandClock(), Registry(), lambda _record: None, preferences=store))


def asking(text: str, operation: str = "chat", **members: Any) -> Call:
    text = text.replace("MESSAGES", MESSAGES)
    body = json.loads(text)
    return make_call(operation, raw=text.encode(), body=body, model=body.get("model"), **members)


async def through(resolve: Resolve, call: Call) -> Call:
    async def innermost(_call: Call) -> Reply:
        return Reply(200)

    assert (await resolve(call, innermost)).status == 200
    return call


async def refused(resolve: Resolve, call: Call) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await through(resolve, call)
    return caught.value


# ------------------------------------------------------------------------------------------------------------------------ the model
@pytest.mark.parametrize("text", ['{"model": "auto", MESSAGES}', "{MESSAGES}", '{"model": null, MESSAGES}'])
async def test_the_hierarchy_chooses_where_the_request_does_not(text: str):
    call = await through(policy(), asking(text))
    assert (call.model, call.resolved and call.resolved.source) == ("llama3.2:3b", "system")
    assert json.loads(call.raw).keys() >= {"model", "messages", "temperature", "max_tokens"}


async def test_a_model_that_is_named_is_the_requests_choice():
    call = await through(policy(), asking('{"model": "llama3.2:1b", MESSAGES}'))
    assert call.resolved is not None
    assert (call.model, call.resolved.sources["model"]) == ("llama3.2:1b", "request")
    assert call.raw == b'{"model": "llama3.2:1b", ' + MESSAGES.encode() + b"}"


async def test_a_key_that_may_not_choose_gets_what_is_configured():
    bound = replace(USER, may_set=frozenset({"timeout"}))
    assert (await through(policy(), asking('{"model": "llama3.2:1b", MESSAGES}', principal=bound))).model == "llama3.2:3b"
    error = await refused(policy(Hierarchy()), asking('{"model": "m", MESSAGES}', principal=bound))
    assert (error.status, error.code) == (403, "permission_denied")


@pytest.mark.parametrize("operation", ["chat", "completion", "embedding"])
async def test_without_a_model_anywhere_it_is_missing(operation: str):
    for hierarchy in (None, Hierarchy()):
        error = await refused(policy(hierarchy), asking("{}", operation))
        assert (error.status, error.param, error.code) == (400, "model", "missing_required_parameter")
        assert error.message == "You must provide the parameter 'model', a string."


async def test_where_not_all_models_are_allowed_a_body_names_one():
    """A provider may take the first of two for the one that is meant."""
    twice = '{"model": "llama3.2:7b", "model": "llama3.2:1b", MESSAGES}'
    call = await through(policy(Hierarchy()), asking(twice))
    assert call.model == "llama3.2:1b"
    error = await refused(policy(Hierarchy(allowed_models=("llama3.2:1b",))), asking(twice))
    assert (error.status, error.code) == (400, "ambiguous_model")
    await through(policy(Hierarchy(allowed_models=("llama3.2:1b",))), asking('{"model": "llama3.2:1b", MESSAGES}'))


async def test_models_for_text_are_not_for_embeddings():
    error = await refused(
        policy(store=Store(user_1=Preferences(model="llama3.2:7b"))), asking('{"input": "x"}', "embedding", principal=USER)
    )
    assert error.code == "missing_required_parameter"
    call = await through(policy(), asking('{"model": "llama3.2:e", "input": "x"}', "embedding"))
    assert call.resolved is not None
    assert (call.resolved.fallback_model, call.resolved.max_retries, call.deadline) == (None, 3, 1060.0)


async def test_other_operations_are_left_alone():
    call = await through(policy(), asking('{"x": 1}', "files"))
    assert (call.model, call.deadline, call.raw) == (None, None, b'{"x": 1}')


async def test_a_response_from_a_stored_prompt_keeps_that_prompts_model():
    assert (await through(policy(), asking('{"prompt": {"id": "p"}}', "responses", path="/responses"))).model is None


async def test_a_model_that_is_not_allowed_is_refused_for_what_it_is():
    for text in ('{"model": "gpt-4", MESSAGES}', '{"model": "auto", "comporta": {"model": "gpt-4"}, MESSAGES}'):
        error = await refused(policy(), asking(text))
        assert (error.status, error.code) == (403, "model_not_allowed")
    own = Store(user_1=Preferences(fallback_model="gpt-4"))
    call = await through(policy(store=own), asking('{"model": "auto", MESSAGES}', principal=USER))
    assert call.resolved is not None
    assert call.resolved.fallback_model is None


# ------------------------------------------------------------------------------------------------------------- what a request may ask
async def test_what_is_ours_is_taken_out_of_the_bytes_and_a_header_goes_before_it():
    text = '{"model": "auto", "comporta": {"timeout": "5s", "max_retries": 0, "task_type": "X"}, MESSAGES, "x": 1.0}'
    call = await through(policy(replace(STRICT, params={})), asking(text, headers={"x-comporta-timeout": "2.5"}))
    assert call.resolved is not None
    assert (call.resolved.timeout, call.resolved.max_retries, call.resolved.task_type, call.deadline) == (2.5, 0, "X", 1002.5)
    assert b"comporta" not in call.raw
    assert b'"x": 1.0}' in call.raw
    assert "comporta" not in call.body


@pytest.mark.parametrize(
    ("member", "headers", "param"),
    [
        ({"timeout": 0}, {}, "comporta.timeout"),
        ({"timeout": "inf"}, {}, "comporta.timeout"),
        ({"timeout": True}, {}, "comporta.timeout"),
        ({"max_retries": -1}, {}, "comporta.max_retries"),
        ({"max_retries": True}, {}, "comporta.max_retries"),
        ({"model": "a\nb"}, {}, "comporta.model"),
        ({"task_type": "x" * 101}, {}, "comporta.task_type"),
        ({"params": []}, {}, "comporta.params"),
        ({"params": {"max_tokens": 0}}, {}, "comporta.params.max_tokens"),
        ({"params": {"max_tokens": True}}, {}, "comporta.params.max_tokens"),
        ({"timeouts": 5}, {}, "comporta.timeouts"),
        ({"timeouts": {"idle": 0}}, {}, "comporta.timeouts.idle"),
        ({"timeouts": {"min_tokens_per_second": "2"}}, {}, "comporta.timeouts.min_tokens_per_second"),
        ({"timeouts": {"overall": 5}}, {}, "comporta.timeouts.overall"),
        ([], {}, "comporta"),
        (None, {}, "comporta"),
        ({}, {"x-comporta-max-retries": "eleven"}, "x-comporta-max-retries"),
        ({}, {"x-comporta-timeout": "9999999"}, "x-comporta-timeout"),
        ({}, {"x-comporta-task-type": ""}, "x-comporta-task-type"),
    ],
)
async def test_a_bad_value_is_refused_by_its_name(member: Any, headers: dict[str, str], param: str):
    for hierarchy in (STRICT, None):
        text = json.dumps({"model": "auto", "comporta": member, "messages": []})
        error = await refused(policy(hierarchy), asking(text, headers=headers))
        assert (error.status, error.param) == (400, param)


async def test_a_request_may_set_each_of_its_timeouts():
    member = '"comporta": {"timeouts": {"first_token": "2s", "idle": 3, "min_tokens_per_second": 4, "connect": null}}'
    for hierarchy in (STRICT, None):
        call = await through(policy(hierarchy), asking('{"model": "llama3.2:3b", ' + member + ", MESSAGES}"))
        assert call.resolved is not None
        assert call.resolved.timeouts == {"first_token": 2.0, "idle": 3.0, "min_tokens_per_second": 4.0}
        assert call.resolved.sources["timeouts.idle"] == "request"
        assert b"timeouts" not in call.raw


async def test_what_a_key_may_not_set_is_refused():
    bound = replace(USER, may_set=frozenset({"model"}))
    for text in ('"comporta": {"timeout": 5}', '"comporta": {"timeouts": {"idle": 5}}', '"temperature": 0', '"max_completion_tokens": 5'):
        error = await refused(policy(), asking('{"model": "auto", ' + text + ", MESSAGES}", principal=bound))
        assert (error.status, error.code) == (403, "permission_denied")
    some = replace(USER, task_types=frozenset({"A"}))
    error = await refused(policy(), asking("{MESSAGES}", principal=some, headers={"x-comporta-task-type": "B"}))
    assert (error.status, error.param) == (403, "task_type")


async def test_metadata_that_is_no_task_type_is_the_clients_own():
    call = await through(policy(), asking('{"model": "auto", "metadata": {"task_type": 5}, MESSAGES}'))
    assert call.resolved is not None
    assert call.resolved.task_type is None


# ------------------------------------------------------------------------------------------------------------------------ parameters
@pytest.mark.parametrize(
    ("operation", "set_by_client", "filled"),
    [
        ("chat", {}, {"temperature": 0.7, "max_tokens": 2048}),
        ("chat", {"temperature": 0}, {"temperature": 0, "max_tokens": 2048}),
        ("chat", {"temperature": None}, {"temperature": 0.7, "max_tokens": 2048}),
        ("chat", {"max_completion_tokens": 9}, {"temperature": 0.7, "max_completion_tokens": 9}),
        ("completion", {"max_tokens": 9}, {"temperature": 0.7, "max_tokens": 9}),
        ("responses", {}, {"temperature": 0.7, "max_output_tokens": 2048}),
        ("responses", {"max_output_tokens": 9}, {"temperature": 0.7, "max_output_tokens": 9}),
    ],
)
async def test_only_what_the_request_leaves_unset_is_filled(operation: str, set_by_client: dict[str, Any], filled: dict[str, Any]):
    text = json.dumps({"model": "auto", "input": "x", **set_by_client})
    call = await through(policy(), asking(text, operation, path=f"/{operation}"))
    expected = {"model": "auto", "input": "x", **filled}
    assert json.loads(call.raw) == call.body == expected


# -------------------------------------------------------------------------------------------------------------------- context window
def long(tokens: int) -> str:
    return json.dumps({"model": "auto", "messages": [{"role": "u", "content": "word" * tokens}]})


async def test_a_prompt_that_is_too_long_is_refused_before_it_is_sent():
    error = await refused(policy(), asking(long(9000)))
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")


async def test_a_prompt_that_is_too_long_goes_to_a_larger_model_where_one_is_configured():
    for hierarchy in (
        replace(STRICT, larger_model="llama3.2:7b"),
        replace(STRICT, system=replace(STRICT.system, fallback_model="llama3.2:7b")),
    ):
        call = await through(policy(hierarchy), asking(long(9000)))
        assert call.resolved is not None
        assert (call.model, call.resolved.context_window, call.body["temperature"]) == ("llama3.2:7b", 16384, 0.6)
        assert (await refused(policy(hierarchy), asking(long(17000)))).code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("models", "answers"), [(("llama3.2:3b",), None), (("llama3.2:*",), "llama3.2:7b"), (("llama3.2:3b", "*:9b"), "llama3.2:9b")]
)
async def test_a_prompt_that_is_too_long_goes_to_no_model_that_the_key_may_not_use(models: tuple[str, ...], answers: str | None):
    windows = {**STRICT.context_windows, "llama3.2:9b": 32768}
    hierarchy = replace(
        STRICT, larger_model="llama3.2:7b", context_windows=windows, system=replace(STRICT.system, fallback_model="llama3.2:9b")
    )
    call = asking(long(9000), principal=replace(USER, models=models))
    if answers is None:
        error = await refused(policy(hierarchy), call)
        assert (error.status, error.code) == (400, "context_length_exceeded")
    else:
        assert (await through(policy(hierarchy), call)).model == answers


async def test_a_prompt_of_token_numbers_has_as_many_tokens_as_numbers():
    for count, fits in ((8192, True), (8193, False)):
        call = asking(json.dumps({"model": "auto", "prompt": [7] * count}, separators=(",", ":")), "completion")
        if fits:
            assert (await through(policy(), call)).model == "llama3.2:3b"
        else:
            assert (await refused(policy(), call)).code == "context_length_exceeded"


def test_pictures_are_no_text():
    picture = {"type": "image_url", "image_url": {"url": "data:" + "A" * 100_000}}
    assert estimated_tokens({"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "four"}]}]}) < 10


# ------------------------------------------------------------------------------------------------------------------------------ users
async def test_preferences_are_the_keys_owners_and_are_kept():
    store = Store(user_1=Preferences(model="llama3.2:7b"))
    resolve = policy(store=store)
    first = await through(resolve, asking("{MESSAGES}", principal=USER))
    second = await through(resolve, asking("{MESSAGES}", principal=USER))
    assert first.resolved is second.resolved
    assert (first.model, store.found) == ("llama3.2:7b", ["user_1"])


async def test_an_outcome_is_forgotten_when_the_preferences_change():
    store = Store(user_1=Preferences(model="llama3.2:7b"))
    resolve = policy(store=store)
    await through(resolve, asking("{MESSAGES}", principal=USER))
    await store.put("user_1", Preferences(model="llama3.2:1b"))
    assert (await through(resolve, asking("{MESSAGES}", principal=USER))).model == "llama3.2:1b"


@pytest.mark.parametrize(("names_users", "model"), [(True, "llama3.2:1b"), (False, "llama3.2:7b")])
async def test_another_users_preferences_count_only_for_a_key_that_names_users(names_users: bool, model: str):
    store = Store(user_1=Preferences(model="llama3.2:7b"), other=Preferences(model="llama3.2:1b"))
    service = replace(USER, names_users=names_users)
    call = await through(policy(store=store), asking('{"user": "other", MESSAGES}', principal=service))
    assert (call.model, call.end_user) == (model, "other")


@pytest.mark.parametrize(
    ("principal", "named", "model"),
    [
        (replace(USER, tier="premium"), None, "llama3.2:7b"),
        (replace(USER, tier="gold"), None, "llama3.2:1b"),
        (USER, None, "llama3.2:1b"),
        (ANONYMOUS, None, "llama3.2:3b"),
        (replace(USER, names_users=True), "bob", "llama3.2:7b"),
        (replace(USER, names_users=True, tier="premium"), "ann", "llama3.2:1b"),
        (replace(USER, names_users=True, tier="premium"), "stranger", "llama3.2:3b"),
        (replace(USER, names_users=True, tier="premium"), None, "llama3.2:7b"),
        (USER, "bob", "llama3.2:1b"),
        (ANONYMOUS, "bob", "llama3.2:7b"),
    ],
)
async def test_the_model_of_a_tier_is_for_the_user_whose_preferences_count(principal: Principal, named: str | None, model: str):
    """Who is known without a tier is one of all the others; of a stranger nothing is known."""
    tiers = replace(STRICT, premium_model="llama3.2:7b", standard_model="llama3.2:1b")
    resolve = policy(tiers, Store(bob=Preferences(tier="premium"), ann=Preferences(tier="")))
    for _ in "12":
        assert (await through(resolve, asking("{MESSAGES}", principal=principal, end_user=named))).model == model


async def test_a_named_users_tier_is_known_to_what_comes_later_whatever_is_asked():
    service = replace(USER, names_users=True, tier="gold")
    for hierarchy, operation in itertools.product((STRICT, None), ("chat", "embedding", "images")):
        resolve = policy(hierarchy, Store(bob=Preferences(tier="premium"), ann=Preferences(tier="")))
        for named, tier in (("bob", "premium"), ("ann", None), ("stranger", None), (None, "gold")):
            text = '{"model": "llama3.2:1b", "temperature": 0.5, MESSAGES}'
            call = await through(resolve, asking(text, operation, principal=service, end_user=named))
            assert [each for each in ("gold", "premium", "") if holds((("tier", (each,)),), call)] == ([tier] if tier else [])


async def test_an_outcome_is_forgotten_when_a_named_users_tier_changes():
    store = Store(bob=Preferences(tier=""))
    resolve = policy(replace(STRICT, premium_model="llama3.2:7b"), store)
    service = replace(USER, names_users=True)
    for tier, model in (("", "llama3.2:3b"), ("premium", "llama3.2:7b"), ("", "llama3.2:3b")):
        await store.put("bob", Preferences(tier=tier))
        assert (await through(resolve, asking("{MESSAGES}", principal=service, end_user="bob"))).model == model


# ------------------------------------------------------------------------------------------------------------------------ nothing set
async def test_without_the_section_a_call_goes_on_as_it_is_and_its_source_is_the_request():
    call = await through(policy(None), asking('{"model": "auto", MESSAGES}'))
    assert (call.model, call.deadline) == ("auto", None)
    assert call.resolved is not None
    assert call.resolved.source == "request"


async def test_the_account_is_short_and_in_ascii():
    text = json.dumps({"model": "é" * 200, "comporta": {"fallback_model": "é" * 200}, "messages": []})
    headers = {"x-comporta-explain": "true", "x-comporta-task-type": "ü" * 100}
    call = await through(policy(None), asking(text, headers=headers))
    assert call.notes["explain"].isascii()
    assert len(call.notes["explain"]) <= 2048
    assert json.loads(call.notes["explain"])["source"] == "request"
