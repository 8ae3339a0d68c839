"""Who asks: what a request shows, what that comes to, and that nobody else gets further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from policies.authenticate import USER, Authenticate, AuthenticateSettings, credential
from proxy.core import keys
from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import CapacityError, ClientError, GatewayError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.reply import Reply
from proxy.http import routes
from tests.core.doubles import HandClock, make_call

TOKEN = "sk-cmp-JIM6XXOJZa8Y_6juwaIUP9HqEx2pYNCZ70ciDHAh9hu4Eb_e449ca07"  # always the same: test names come out of it
OTHER = keys.generate()[1]
KEY = Principal("ann", "k1")
FOREIGN = "sk-proj-abcdef"


class Known:
    """Identities out of a table: what `held` has needs no wait, what `stored` has does."""

    def __init__(self, held: Mapping[str, Principal] | None = None, stored: Mapping[str, Principal] | None = None) -> None:
        self.held = dict(held or {})
        self.stored = dict(stored or {})
        self.recalled: list[str] = []
        self.asked: list[str] = []
        self.failure: GatewayError | None = None

    def mark(self, token: str) -> bytes:
        return token.encode()

    def recall(self, mark: bytes) -> Principal | None:
        token = mark.decode()
        self.recalled.append(token)
        return self.held.get(token)

    async def find(self, token: str) -> Principal | None:
        self.asked.append(token)
        if self.failure is not None:
            raise self.failure
        return self.stored.get(token)


def policy(known: Known | None, *, open: bool | None = False) -> Authenticate:
    return Authenticate(AuthenticateSettings(open=open), Services(HandClock(), Registry(), lambda _fields: None, known))


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def bearing(token: str, *more: tuple[str, str]) -> CIMultiDictProxy[str]:
    return headers(("Authorization", f"Bearer {token}"), *more)


async def passed(which: Authenticate, call: Call) -> Call:
    """The call as the next policy sees it. Nothing of its body has been read by then."""

    async def receive(_call: Call) -> None:
        raise AssertionError("the body was read")

    async def innermost(inner: Call) -> Reply:
        seen.append(inner)
        return Reply(201)

    seen: list[Call] = []
    call.receive = receive
    reply = await which(call, innermost)
    assert reply.status == 201
    return seen[0]


async def refused(which: Authenticate, call: Call) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await passed(which, call)
    assert (call.principal is ANONYMOUS) is (caught.value.status != 403)  # a known key that may not is named
    for secret in (TOKEN, OTHER, FOREIGN):
        assert secret not in repr(vars(caught.value))
    return caught.value


# --------------------------------------------------------------------------------------------------------------------- what a request shows
@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((), None),
        ((("Authorization", "Bearer a"),), "a"),
        ((("authorization", "bearer   a  "),), "a"),
        ((("Authorization", "BEARER a"),), "a"),
        ((("Authorization", "Bearer "),), ""),
        ((("Authorization", "Basic a"),), "Basic a"),
        ((("api-key", "a"),), "a"),
        ((("X-Api-Key", "a"),), "a"),
        ((("X-Api-Key", "a"), ("Authorization", "Bearer a"), ("api-key", "a")), "a"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_credential_is_found_wherever_clients_put_it(shown: tuple[tuple[str, str], ...], expected: str | None, strict: bool):
    assert credential(headers(*shown), strict=strict) == expected


@pytest.mark.parametrize(
    "shown",
    [
        (("Authorization", f"Bearer {TOKEN}"), ("x-api-key", OTHER)),
        (("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {OTHER}")),
        (("Authorization", f"Bearer {FOREIGN}"), ("api-key", TOKEN)),
        (("api-key", TOKEN), ("x-api-key", FOREIGN)),
        (("x-api-key", TOKEN), ("x-api-key", FOREIGN)),
    ],
)
async def test_two_different_keys_are_one_too_many(shown: tuple[tuple[str, str], ...]):
    for is_open in (True, False):
        error = await refused(policy(Known({TOKEN: KEY, OTHER: KEY}), open=is_open), make_call(headers=headers(*shown)))
        assert (error.status, error.code) == (400, "ambiguous_credentials")


async def test_what_is_no_key_of_ours_may_differ_where_nobody_needs_one():
    call = make_call(headers=bearing(FOREIGN, ("x-api-key", "another")))
    assert (await passed(policy(None, open=True), call)).principal is ANONYMOUS
    assert (await refused(policy(Known()), call)).status == 400


# --------------------------------------------------------------------------------------------------------------------- what that comes to
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_key_that_is_in_hand_is_not_asked_for(is_open: bool):
    known = Known({TOKEN: KEY})
    assert (await passed(policy(known, open=is_open), make_call(headers=bearing(TOKEN)))).principal is KEY
    assert (known.recalled, known.asked) == ([TOKEN], [])


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_key_that_is_not_in_hand_is_asked_for(is_open: bool):
    known = Known(stored={TOKEN: KEY})
    assert (await passed(policy(known, open=is_open), make_call(headers=bearing(TOKEN)))).principal is KEY
    assert known.asked == [TOKEN]


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("known", [Known(), None])
async def test_a_key_that_nobody_knows_is_refused_also_where_none_is_needed(is_open: bool, known: Known | None):
    if known is None and not is_open:
        with pytest.raises(CapacityError):
            await passed(policy(known, open=is_open), make_call(headers=bearing(TOKEN)))
        return
    error = await refused(policy(known, open=is_open), make_call(headers=bearing(TOKEN)))
    assert (error.status, error.type, error.code, error.param) == (401, "invalid_request_error", "invalid_api_key", None)


@pytest.mark.parametrize(
    "token",
    [TOKEN[:-1], TOKEN + "a", TOKEN[:-8] + "00000000", "sk-cmp-'; DROP TABLE virtual_keys; --", "sk-cmp-" + "a" * 2**20, "sk-cmp-"],
    ids=["short", "long", "other check", "SQL", "huge", "empty"],
)
@pytest.mark.parametrize("is_open", [True, False])
async def test_what_cannot_be_a_key_is_asked_of_nobody(token: str, is_open: bool):
    known = Known()
    error = await refused(policy(known, open=is_open), make_call(headers=bearing(token)))
    assert (error.status, error.code) == (401, "invalid_api_key")
    assert not known.asked


@given(st.text(st.characters(exclude_categories=()), max_size=100))
async def test_whatever_stands_in_the_header_is_a_401_that_does_not_repeat_it(text: str):
    known = Known()
    for value in (text, f"Bearer {text}", f"Bearer {keys.PREFIX}{text}"):
        with pytest.raises(ClientError) as caught:
            await passed(policy(known), make_call(headers={"authorization": value}))
        assert caught.value.status == 401
        assert len(text) < 10 or text not in caught.value.message
    assert not known.asked


async def test_without_a_key_an_open_gateway_serves_and_a_closed_one_says_how():
    assert (await passed(policy(None, open=True), make_call())).principal is ANONYMOUS
    for shown in (headers(), headers(("Authorization", "Bearer "))):
        error = await refused(policy(Known()), make_call(headers=shown))
        assert (error.status, error.code) == (401, "invalid_api_key")
        assert error.message.startswith("You didn't provide an API key.")


async def test_other_keys_are_ignored_where_it_is_open_and_refused_where_it_is_not():
    known = Known()
    assert (await passed(policy(known, open=True), make_call(headers=bearing(FOREIGN)))).principal is ANONYMOUS
    error = await refused(policy(known), make_call(headers=bearing(FOREIGN)))
    assert (error.status, error.message.startswith("Incorrect API key provided")) == (401, True)
    assert not known.recalled


def test_what_is_not_said_to_be_open_is_closed():
    with pytest.raises(ClientError):
        policy(Known(), open=None)(make_call(), lambda _call: pytest.fail("it got through"))


async def test_a_database_that_does_not_answer_is_not_the_clients_fault():
    known = Known()
    known.failure = CapacityError("gone")
    with pytest.raises(CapacityError):
        await passed(policy(known), make_call(headers=bearing(TOKEN)))


@pytest.mark.parametrize("name", ["key", "api_key"])
async def test_a_key_in_the_query_is_none(name: str):
    assert (await refused(policy(Known({TOKEN: KEY})), make_call(query=f"{name}={TOKEN}"))).status == 401


# -------------------------------------------------------------------------------------------------------------------------------- limits
async def test_a_key_is_good_from_its_addresses_only():
    known = Known({TOKEN: Principal("ann", "k1", addresses=("10.0.0.0/8",))})
    assert (await passed(policy(known), make_call(headers=bearing(TOKEN), peer="10.9.8.7"))).principal.id == "ann"
    for peer in ("11.0.0.1", "local", ""):
        error = await refused(policy(known), make_call(headers=bearing(TOKEN), peer=peer))
        assert (error.status, error.code) == (403, "permission_denied")


async def test_limits_hold_for_a_key_that_had_to_be_asked_for():
    known = Known(stored={TOKEN: Principal("ann", "k1", operations=frozenset({"embedding"}))})
    assert (await refused(policy(known), make_call(headers=bearing(TOKEN)))).status == 403


@pytest.mark.parametrize("limits", [{"operations": frozenset({"embedding"})}, {"addresses": ("10.0.0.0/8",)}])
async def test_a_key_that_is_refused_is_known_all_the_same(limits: dict[str, Any]):
    call, known = make_call(headers=bearing(TOKEN)), Known({TOKEN: Principal("ann", "k1", **limits)})
    assert (await refused(policy(known), call)).status == 403
    assert (call.principal.id, call.principal.key) == ("ann", "k1")


async def test_on_whose_behalf_a_key_may_say():
    shown = bearing(TOKEN, (USER, "bob@example.org"))
    may = Known({TOKEN: Principal("app", "k1", names_users=True)})
    assert (await passed(policy(may), make_call(headers=shown))).end_user == "bob@example.org"
    with pytest.raises(ClientError) as caught:
        await passed(policy(Known({TOKEN: KEY})), make_call(headers=shown))
    assert (caught.value.status, caught.value.code) == (403, "permission_denied")


async def test_where_no_key_is_needed_anyone_may_say():
    assert (await passed(policy(None, open=True), make_call(headers=headers((USER, "bob"))))).end_user == "bob"


@pytest.mark.parametrize("name", ["", "a\tb", "a\x00", "a" * 257, "\udcff"])
async def test_a_user_has_a_name(name: str):
    with pytest.raises(ClientError) as caught:
        await passed(policy(None, open=True), make_call(headers={USER: name}))
    assert (caught.value.status, caught.value.param) == (400, USER)


# ----------------------------------------------------------------------------------------------------------------------- routes and roles
#: Operations that a key has without being granted anything, but for what `test_permissions` lists; written out, so that a new one is seen.
EVERYONES = {"chat", "completion", "embedding", "models", "llm", "llm_config", "responses", "audio", "images", "moderations"} | {
    "decisions", "rerank", "score", "classify", "pooling", "tokenize",
}  # fmt: skip
EXCEPTIONS = {("DELETE", "/models/{model}"): "fine_tuning"} | {
    (method, path): "voices" for _, methods, path in routes.ROWS for method in methods if path.startswith("/audio/voice")
}
ROUTES = [(operation, method, path) for operation, methods, path in routes.ROWS for method in methods]


def needed(operation: str, method: str, path: str) -> str | None:
    return EXCEPTIONS.get((method, path)) or (None if operation in EVERYONES else operation)


async def status(which: Authenticate, route: tuple[str, str, str], shown: Any) -> int:
    operation, method, path = route
    found = routes.find(method, path.replace("{", "").replace("}", ""))
    assert isinstance(found, routes.Route)
    assert found.operation == operation
    try:
        await passed(which, make_call(operation, method=method, path=found.path, headers=shown))
    except ClientError as error:
        return error.status
    return 200


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_every_route_for_every_role(route: tuple[str, str, str]):
    grant = needed(*route)
    granted = Principal("ann", "k1", grants=frozenset({grant}) if grant else frozenset())
    others = Principal("ann", "k1", grants=frozenset({"chat", "everything", "*", ""} - {grant}))
    outcome = {
        "anonymous, open": await status(policy(None, open=True), route, headers()),
        "anonymous, closed": await status(policy(Known()), route, headers()),
        "wrong key": await status(policy(Known()), route, bearing(TOKEN)),
        "key": await status(policy(Known({TOKEN: KEY})), route, bearing(TOKEN)),
        "key, open": await status(policy(Known({TOKEN: KEY}), open=True), route, bearing(TOKEN)),
        "key with the grant": await status(policy(Known({TOKEN: granted})), route, bearing(TOKEN)),
        "key with other grants": await status(policy(Known({TOKEN: others})), route, bearing(TOKEN)),
        "key without operations": await status(policy(Known({TOKEN: Principal(key="k", operations=frozenset())})), route, bearing(TOKEN)),
    }
    plain = 200 if grant is None else 403
    assert outcome == {
        "anonymous, open": 200,
        "anonymous, closed": 401,
        "wrong key": 401,
        "key": plain,
        "key, open": plain,
        "key with the grant": 200,
        "key with other grants": plain,
        "key without operations": 403,
    }


def test_the_table_of_routes_has_operations_of_both_sorts():
    assert {operation for operation, _, _ in ROUTES} > EVERYONES
    assert len([route for route in ROUTES if needed(*route)]) > 100
