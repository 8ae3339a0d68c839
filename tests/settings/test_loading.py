"""What a configuration comes to mean, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings import Settings, SettingsError, dump, load, mark_of, parse_address, restore
from tests.settings.conftest import Load, Refused, check_told, nobody_listens, provider

OPENAI = 'providers:\n  openai: {kind: openai, api_key: "env:OPENAI_API_KEY"}\n'


# ------------------------------------------------------------------------------------------------------------------------------ meaning
def test_with_nothing_at_all_there_is_the_simulated_provider(loaded: Load):
    found = loaded(None)
    assert list(found.settings.providers) == ["sim"]
    assert (found.settings.models, found.settings.default_provider, found.file) == (None, None, None)
    assert set(found.sources.values()) == {"default"}


def test_the_listed_providers_come_first_and_in_their_order(loaded: Load):
    found = loaded("providers:\n  zeta: {kind: sim}\n  alpha: {kind: sim}\n").settings
    assert (list(found.providers), found.default_provider) == (["zeta", "alpha", "sim"], "zeta")


def test_the_simulated_provider_can_be_left_out(loaded: Load):
    assert list(loaded(OPENAI + "sim: false\n").settings.providers) == ["openai"]
    assert list(loaded(OPENAI, {"COMPORTA_SIM": "false"}).settings.providers) == ["openai"]


def test_the_simulated_provider_can_be_set_up(loaded: Load):
    found = loaded('providers: {sim: {kind: sim, first_token: "1s"}}')
    assert provider(found, "sim").first_token == 1.0


@pytest.mark.parametrize(
    "written",
    [
        "openai",
        "{provider: openai}",
        "{provider: openai, model: fast}",
        "{targets: [{provider: openai}]}",
        "{targets: [{provider: openai, model: fast}]}",
    ],
)
def test_all_forms_of_a_model_mean_the_same(loaded: Load, written: str):
    found = loaded(f"{OPENAI}models:\n  fast: {written}\n")
    entry = (found.settings.models or {})["fast"]
    assert (entry.provider, entry.model) == ("openai", "fast")
    assert found.sources["models.fast.provider"] == "file:4"


def test_an_absent_table_differs_from_an_empty_one(loaded: Load):
    assert loaded(OPENAI).settings.models is None
    assert loaded(OPENAI + "models:\n").settings.models is None
    assert loaded(OPENAI + "models: {}\n").settings.models == {}


def test_the_mark_of_a_file_is_that_of_what_was_read(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    path.write_text("sim: true", encoding="utf-8")
    before = mark_of(path)

    def changes_it(_host: str, _port: int) -> bool:
        path.write_text("sim: true  # written meanwhile", encoding="utf-8")
        return False

    assert load(path, {}, {}, probe=changes_it).mark == before != mark_of(path)


def test_names_with_dots_are_quoted_in_paths(loaded: Load):
    assert loaded(OPENAI + "models: {gpt-4.1: openai}\n").sources['models."gpt-4.1".provider'] == "file:3"


def test_policies_are_set_or_switched_off(loaded: Load):
    policies = loaded(OPENAI + "policies: {record: false, timeout: {}}\n").settings.policies
    assert policies["record"] is False
    assert policies["timeout"]
    assert loaded(OPENAI, {"COMPORTA_POLICIES__RECORD": "false"}).settings.policies == {"record": False}


def test_settings_do_not_change(loaded: Load):
    settings = loaded(OPENAI).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.sim = False  # type: ignore[misc]  # that is what is refused


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))]
)
def test_addresses_are_host_and_port(text: str, address: tuple[str, int]):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "http://127.0.0.1:80", "a b:1", "h:1\n"]
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ValueError, match="wants HOST:PORT"):
        parse_address(text)


def test_proxies_are_networks_addresses_or_the_unix_socket(loaded: Load):
    written = '["10.0.0.0/8", "10.1.2.3/8", "2001:db8::1", local]'
    found = loaded(f"server: {{trusted_proxies: {written}}}").settings.server.trusted_proxies
    assert found == ("10.0.0.0/8", "10.1.2.3/8", "2001:db8::1", "local")


# ------------------------------------------------------------------------------------------------------------------------------ refusal
CASES = {
    "an unknown section": ("polices: {}", 1, "polices", "did you mean 'policies'?"),
    "an unknown key": ("server:\n  grase: 3s", 2, "server.grase", "did you mean 'grace'?"),
    "an unknown key deep inside": (
        'providers:\n  a:\n    kind: openai\n    base_url: "http://127.0.0.1:1"\n    timeouts:\n      conect: "5s"',
        6,
        "providers.a.timeouts.conect",
        "did you mean 'connect'? known here: connect, first_token, idle, total",
    ),
    "a duration without a unit": ("server: {grace: 30}", 1, "server.grace", 'such as "30s"'),
    "a negative number": ("server: {max_connections: -1}", 1, "server.max_connections", "must be greater than or equal to 1"),
    "a patience of nothing": ('server: {body_timeout: "0s"}', 1, "server.body_timeout", "must be greater than 0"),
    "a size that is none": ("server: {max_body: big}", 1, "server.max_body", "is no size"),
    "a wrong type": ("server: {max_connections: many}", 1, "server.max_connections", "wants a whole number; it is: connections"),
    "a flag for a count": ("server: {workers: true}", 1, "server.workers", "wants a whole number"),
    "a flag for a size": ("server: {max_body: true}", 1, "server.max_body", "wants a whole number"),
    "a flag for a share": ("policies: {retry: {budget: true}}", 1, "policies.retry.budget", "wants a number"),
    "a flag for a duration": ("server: {grace: true}", 1, "server.grace", 'such as "30s"'),
    "a flag for a weight": ("models: {a: {targets: [{provider: sim, weight: yes}]}}", 1, "models.a.targets[0].weight", "wants a number"),
    "a count beyond counting": (f"server: {{max_in_flight: {10**30}}}", 1, "server.max_in_flight", "is too large"),
    "a size beyond counting": ("server: {max_body: 9999999999GiB}", 1, "server.max_body", "is too large"),
    "a size without end": (f"server: {{max_body: '{'9' * 400}'}}", 1, "server.max_body", "is too large"),
    "a duration without end": (f"server: {{grace: {'9' * 400}s}}", 1, "server.grace", "is too large"),
    "an infinite weight": ("models: {a: {targets: [{provider: sim, weight: .inf}]}}", 1, "models.a.targets[0].weight", "is too large"),
    "a section that is no mapping": ("server: 3", 1, "server", "wants a mapping"),
    "an address that is none": ("server: {listen: 8080}", 1, "server.listen", "wants text"),
    "a proxy that is no network": (
        "server: {trusted_proxies: [lb1]}",
        1,
        "server.trusted_proxies[0]",
        "does not appear to be an IPv4 or IPv6",
    ),
    "a proxy that is everybody": ('server: {trusted_proxies: ["::/0"]}', 1, "server.trusted_proxies[0]", "would believe everybody"),
    "no worker": ("server: {workers: 0}", 1, "server.workers", "greater than or equal to 1"),
    "a certificate by environment": (
        'server: {tls: {certificate: "env:A", key: "file:b"}}',
        1,
        "server.tls.certificate",
        'wants a file, as "file:PATH"',
    ),
    "a certificate by its path": ("server: {tls: {certificate: /a, key: /b}}", 1, "server.tls.certificate", 'wants a file, as "file:PATH"'),
    "a certificate of a path that no file has": (
        f"server: {{tls: {{certificate: 'file:{'a' * 5000}', key: 'file:b'}}}}",
        1,
        "server.tls.certificate",
        "cannot be read",
    ),
    "a certificate alone": ('server:\n  tls: {certificate: "file:a"}', 2, "server.tls.key", "is missing; it is: PEM file"),
    "a kind that is not there": (
        "providers:\n  a:\n    kind: opnai",
        3,
        "providers.a.kind",
        "there is no kind 'opnai'; did you mean 'openai'?",
    ),
    "a provider without a kind": ("providers:\n  a: {}", 2, "providers.a", "has no kind"),
    "a provider that is no mapping": ("providers:\n  a: openai", 2, "providers.a", "wants a mapping, such as {kind: openai}"),
    "providers as a list": ("providers: [a]", 1, "providers", "wants a mapping from names to entries"),
    "a provider's name": ("providers:\n  My AI: {kind: sim}", 2, 'providers."My AI"', "such as 'my-ai'"),
    "a model of nobody": (OPENAI + "models:\n  a: opneai", 4, "models.a.provider", "there is no provider 'opneai'; did you mean 'openai'?"),
    "a model of a wrong provider's": ("providers: {a: {kind: sim, x: 1}}\nmodels: {m: b}", 2, "models.m.provider", "no provider 'b'"),
    "a model written in one": (OPENAI + "models: {a: openai/gpt}", 3, "models.a.provider", "write a: {provider: openai, model: gpt}"),
    "a model that is a list": (OPENAI + "models: {a: [openai]}", 3, "models.a", "wants a provider's name"),
    "a model without a name": (OPENAI + 'models: {"": openai}', 3, 'models.""', "a model needs a name"),
    "an unknown key of a model": (OPENAI + "models: {a: {provider: openai, modl: x}}", 3, "models.a.modl", "did you mean 'model'?"),
    "no target": (OPENAI + "models: {a: {targets: []}}", 3, "models.a.targets", "at least 1 item"),
    "a default that is not there": (OPENAI + "default_provider: opena", 3, "default_provider", "did you mean 'openai'?"),
    "a default that is no name": (OPENAI + "default_provider: [openai]", 3, "default_provider", "wants a provider's name"),
    "an unknown policy": ("policies:\n  recrd: {}", 2, "policies.recrd", "did you mean 'record'?"),
    "a policy's unknown key": ("policies: {record: {prompt: never}}", 1, "policies.record.prompt", "did you mean 'prompts'?"),
    "sim as a section": ("sim: {length: 3}", 1, "sim", "wants true or false"),
    "no provider at all": ("providers: {}\nsim: false", 2, "sim", "there is no provider"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_value_is_told_with_line_path_and_what_would_be_right(refused: Refused, case: str):
    text, line, path, said = CASES[case]
    check_told(refused(text), line, path, said)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(refused: Refused):
    problems = refused(
        "servr: {}\nserver: {grce: 1s}\nproviders: {a: {kind: x}, b: {kind: sim, y: 1}}\n"
        "models: {m: c}\ndefault_provider: d\npolicies: {z: {}}\n"
    )
    assert [problem.line for problem in problems] == [1, 2, 3, 3, 4, 5, 6]


def test_the_message_has_one_line_for_each_problem(loaded: Load):
    with pytest.raises(SettingsError) as caught:
        loaded("a: 1\nb: 2\n")
    assert len(str(caught.value).splitlines()) == 2


# ------------------------------------------------------------------------------------------------------------------------------ secrets
SECRET = "sk-proj-Abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        (f"providers:\n  spare-2:\n    kind: openai\n    api_key: {SECRET}", 'api_key: "env:SPARE_2_API_KEY"'),
        (f"providers:\n  spare:\n    kind: openai\n    api_keys:\n      [{SECRET}]", 'api_keys: ["env:SPARE_API_KEY"]'),
        (f"providers:\n  spare:\n    kind: openai\n    headers:\n      x-key: Bearer {SECRET}", 'api_key: "env:NAME"'),
        (f"providers:\n  spare:\n    kind: openai\n    headers: {{}}\n    organization: {SECRET}", 'api_key: "env:NAME"'),
        (f"providers:\n  spare:\n    kind: openai\n    headers:\n      Authorization: {SECRET[3:]}", 'api_key: "env:NAME"'),
        (f"providers:\n  spare:\n    kind: openai\n\n    apikey: {SECRET}", 'api_key: "env:NAME"'),
        (f"providers:\n  spare:\n    kind: openai\n\n    apikey: {SECRET[3:]}", "did you mean 'api_key'?"),
        (f"providers:\n  spare:\n    kind: openai\n\n    base_url: {SECRET}", 'api_key: "env:NAME"'),
    ],
)
def test_a_key_in_the_file_is_refused_with_the_line_to_write_instead_and_not_repeated(refused: Refused, text: str, instead: str):
    problems = refused(text)
    said = "\n".join(map(str, problems))
    assert instead in said
    assert {problem.line for problem in problems} <= {4, 5}
    assert SECRET not in said
    assert SECRET[3:] not in said


def test_a_key_in_a_variable_is_refused_too(refused: Refused):
    problems = refused(OPENAI, {"COMPORTA_PROVIDERS__OPENAI__API_KEY": SECRET})
    assert "environment variable COMPORTA_PROVIDERS__OPENAI__API_KEY" in str(problems[0])
    assert SECRET not in str(problems)


@pytest.mark.parametrize("value", ['"a\\nb"', '"a\\rb"', '"a\\0b"'])
@pytest.mark.parametrize(
    "place", ["providers: {{a: {{kind: openai, organization: {}}}}}", "models: {{{}: sim}}", "providers: {{{}: {{kind: sim}}}}"]
)
def test_control_characters_are_refused_everywhere(refused: Refused, place: str, value: str):
    assert "control character" in str(refused(place.format(value))[0])


# ------------------------------------------------------------------------------------------------------------------- another process
CONFIG = Path(__file__).resolve().parents[2] / "config"


def _check_restored(settings: Settings) -> None:
    found = restore(dump(settings))
    assert found == settings
    assert dump(found) == dump(settings)
    assert found.server.largest_upload == settings.server.largest_upload
    assert found.health.warns_once == settings.health.warns_once


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_means_the_same_in_another_process(path: Path):
    _check_restored(load(path, {}, {}, probe=nobody_listens).settings)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "server: {max_body: 32MiB}",
        "server: {max_upload: 1GiB}",
        "health: {unlisted_models: warn}",
        "health: {interval: 30s}",
        "policies: {hedge: true, retry: false, timeout: {}}",
        "storage: {}",
        "models: {}",
        "llm: {}",
    ],
)
def test_what_is_written_and_what_is_a_default_are_told_apart_in_another_process(loaded: Load, written: str):
    found = loaded(OPENAI + written, {"COMPORTA_PROVIDERS__OPENAI__TIMEOUTS__IDLE": "5s"}, {"--listen": "127.0.0.1:0"}).settings
    _check_restored(found)
