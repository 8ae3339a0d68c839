"""Reading: YAML, the environment, flags, and which of them wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import SettingsError
from proxy.settings.source import parse, read_file
from proxy.settings.tree import dotted
from tests.settings.conftest import Load, Refused, provider


def _parse(text: str):
    return parse(text, "gateway.yaml", lambda line: f"file:{line}")


def _problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _parse(text)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------------------------- YAML
def test_every_value_knows_its_line():
    root = _parse("a:\n  b: 1\n  c:\n    - x\n    - y\n")
    assert {dotted(path): node.line for path, node in root.leaves()} == {"a.b": 2, "a.c[0]": 4, "a.c[1]": 5}


def test_keys_are_taken_as_they_are_written():
    assert _parse("on: 1\n4.1: 2\nnull: 3\n'yes': 4").plain() == {"on": 1, "4.1": 2, "null": 3, "yes": 4}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("1.5", 1.5),
        ("true", True),
        ("no", False),
        ("~", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ('"1"', "1"),
        ("=", "="),
    ],
)
def test_scalars_are_what_they_look_like(written: str, value: object):
    assert _parse(f"a: {written}").plain() == {"a": value}


def test_a_key_that_stands_twice_is_refused_with_both_lines():
    assert _problem("a: 1\nb: 2\na: 3\n") == "gateway.yaml:3: a: is written twice; the first is on line 1"


def test_all_repeated_keys_are_told_at_once():
    assert _problem("a: 1\na: 2\nb: {c: 1, c: 2}").count("is written twice") == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1, 2\nc: 3\n", 3), ("a: 1\n\tb: 2\n", 2), ("a: *unknown\n", 1), ("a: 1\n---\nb: 2\n", 2), ("x: 1\ny: '\x07'\n", 2)],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, line: int):
    assert _problem(text).startswith(f"gateway.yaml:{line}: is not YAML: ")


def test_tags_build_nothing():
    assert "the tag tag:yaml.org,2002:python/object/apply:os.getcwd" in _problem("a: !!python/object/apply:os.getcwd x")
    assert "is not for configuration" in _problem("a: !secret x")


def test_keys_must_be_names():
    assert "wants plain names as keys" in _problem("? [1, 2]\n: 3\n")


def test_merged_mappings_fill_in_what_is_not_written():
    text = "one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\nthree: {<<: [{a: 5}, *one]}\n"
    assert _parse(text).plain() == {"one": {"a": 1, "b": 2}, "two": {"a": 1, "b": 3}, "three": {"a": 5, "b": 2}}


def test_only_mappings_merge():
    assert "<< wants an alias of a mapping" in _problem("a: {<<: 3}")


def test_aliases_that_multiply_are_refused():
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "expand into too many values" in _problem("l0: &l0 [x]\n" + layers)


def test_a_mapping_inside_itself_is_refused():
    assert "nested too deep" in _problem("a: &a {b: *a}")
    assert "nested too deep" in _problem("[" * 5000)


@pytest.mark.parametrize(("content", "said"), [(b"a: \xff", ":1: is not UTF-8 text"), (b"- a\n", ":1: wants a mapping at its top level")])
def test_a_file_that_is_no_mapping_of_text_is_refused(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "gateway.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_file(path)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"missing\.yaml: cannot be read: No such file"):
        read_file(tmp_path / "missing.yaml")


def test_an_enormous_file_is_not_read(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    with path.open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(SettingsError, match="larger than 4 MiB"):
        read_file(path)


def test_what_has_no_end_is_not_read_to_it():
    with pytest.raises(SettingsError, match="/dev/zero: is larger than 4 MiB"):
        read_file(Path("/dev/zero"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_a_line_may_end_in_any_way(tmp_path: Path, end: str):
    path = tmp_path / "gateway.yaml"
    path.write_bytes(f"\ufeffa: 1{end}b: |{end}  x{end}  y{end}c: 2{end}".encode())
    root = read_file(path)
    assert root.plain() == {"a": 1, "b": "x\ny\n", "c": 2}
    assert {dotted(at): node.line for at, node in root.leaves()} == {"a": 1, "b": 2, "c": 5}


def test_an_empty_file_is_no_file(loaded: Load):
    assert loaded("# nothing\n").settings == loaded(None).settings


@given(st.text(alphabet=st.sampled_from("ab:-[]{}\n \t'\"&*!|>#,?<~%@`0"), max_size=60))
def test_any_text_is_read_or_refused(text: str):
    try:
        _parse(text)
    except SettingsError as error:
        assert error.problems


# ------------------------------------------------------------------------------------------------------------------------- precedence
def test_flags_win_over_the_environment_and_that_over_the_file(loaded: Load):
    text = 'server:\n  listen: "127.0.0.1:1001"\n  admin_listen: "127.0.0.1:1002"\n  grace: "1s"\n'
    environ = {"COMPORTA_SERVER__LISTEN": "127.0.0.1:2001", "COMPORTA_SERVER__ADMIN_LISTEN": "127.0.0.1:2002"}
    found = loaded(text, environ, {"--listen": "127.0.0.1:3001", "--admin-listen": None})
    server = found.settings.server
    assert (server.listen, server.admin_listen, server.grace, server.ping) == ("127.0.0.1:3001", "127.0.0.1:2002", 1.0, 10.0)
    assert [found.sources[f"server.{name}"] for name in ("listen", "admin_listen", "grace", "ping")] == [
        "flag:--listen",
        "environment:COMPORTA_SERVER__ADMIN_LISTEN",
        "file:4",
        "default",
    ]


def test_the_environment_may_name_the_file(loaded: Load, tmp_path: Path):
    path = tmp_path / "elsewhere.yaml"
    path.write_text("server: {grace: 7s}")
    found = loaded(None, {"COMPORTA_CONFIG": str(path)})
    assert (found.settings.server.grace, found.file) == (7.0, path)


def test_names_of_yours_are_found_from_the_environment(loaded: Load):
    text = 'providers:\n  my-server.eu: {kind: openai, base_url: "http://127.0.0.1:1/v1"}\nmodels: {GPT-4.1: my-server.eu}\n'
    environ = {"COMPORTA_PROVIDERS__MY_SERVER_EU__BASE_URL": "http://127.0.0.1:2/v1", "COMPORTA_PROVIDERS__NEW__KIND": "sim"}
    found = loaded(text, environ)
    assert provider(found, "my-server.eu").base_url == "http://127.0.0.1:2/v1"
    assert provider(found, "new").kind == "sim"


def test_lists_and_mappings_can_be_given_in_a_variable(loaded: Load):
    environ = {"COMPORTA_MODELS": "{fast: {provider: sim, model: x}}", "COMPORTA_DEFAULT_PROVIDER": "sim"}
    found = loaded(None, environ)
    assert (found.settings.models or {})["fast"].model == "x"
    assert found.sources["models.fast.model"] == "environment:COMPORTA_MODELS"


def test_a_variable_that_is_no_yaml_is_named(refused: Refused):
    (problem,) = refused(None, {"COMPORTA_MODELS": "{fast"})
    assert str(problem).startswith("environment variable COMPORTA_MODELS:1: is not YAML")


def test_a_wrong_value_names_its_variable_or_flag(refused: Refused):
    first, second = refused(None, {"COMPORTA_SERVER__GRACE": "soon"}, {"--listen": "here"})
    assert {str(first).split(":")[0], str(second).split(":")[0]} == {"environment variable COMPORTA_SERVER__GRACE", "flag --listen"}


def test_an_unknown_key_in_a_variable_is_refused_with_the_nearest(refused: Refused):
    (problem,) = refused(None, {"COMPORTA_SERVER__LISTN": "127.0.0.1:1"})
    assert (problem.path, "did you mean 'listen'?" in str(problem)) == ("server.listn", True)


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ('server: "0.0.0.0:9999"', "COMPORTA_SERVER__GRACE", "server"),
        ("server: [1, 2]", "COMPORTA_SERVER__GRACE", "server"),
        ("server: {listen: '127.0.0.1:1',\n\n\n tls: x}", "COMPORTA_SERVER__TLS__KEY", "server.tls"),
        ("providers: [openai]", "COMPORTA_PROVIDERS__OPENAI__KIND", "providers"),
        ("providers: {sim: {kind: sim}, a: openai}", "COMPORTA_PROVIDERS__A__KIND", "providers.a"),
        ("policies: {authenticate: [1]}", "COMPORTA_POLICIES__AUTHENTICATE__OPEN", "policies.authenticate"),
        ("models: {m: {targets: [sim]}}", "COMPORTA_MODELS__M__TARGETS__0", "models.m.targets"),
        ("llm: 7", "LLM_MAX_RETRIES", "llm"),
        ("llm: {task_types: 7}", "LLM_TASK_TYPE_CONFIGS", "llm.task_types"),
    ],
)
def test_what_is_wrong_in_the_file_stays_wrong_whatever_a_variable_sets_in_it(refused: Refused, text: str, name: str, path: str):
    (problem,) = refused("\n" + text, {name: '{"a": {"model": "x"}}' if name.endswith("CONFIGS") else "3"})
    assert (problem.path, problem.line) == (path, 5 if "tls" in text else 2)
    assert f"environment variable {name} sets something in it" in str(problem)


def test_what_is_wrong_in_the_file_stays_wrong_whatever_a_flag_sets_in_it(refused: Refused):
    (problem,) = refused("server: 1", None, {"--listen": "127.0.0.1:0"})
    assert str(problem).endswith("gateway.yaml:1: server: is no mapping; flag --listen sets something in it")


def test_short_forms_give_way_to_a_variable(loaded: Load):
    environ = {
        "COMPORTA_POLICIES__RETRY__MAX_RETRIES": "3",
        "COMPORTA_POLICIES__HEDGE__LEAST": "1s",
        "COMPORTA_MODELS__M__PROVIDER": "b",
        "COMPORTA_SERVER__GRACE": "1s",
    }
    found = loaded("server:\nproviders: {a: {kind: sim}, b: {kind: sim}}\nmodels: {m: a}\npolicies: {retry: true, hedge: false}", environ)
    assert (found.settings.server.grace, (found.settings.models or {})["m"].provider) == (1.0, "b")
    values = {path: value for path, value, _ in found.values()}
    assert (values["policies.retry.max_retries"], values["policies.hedge.least"]) == (3, "1s")


def test_an_empty_variable_counts_as_unset(loaded: Load):
    assert loaded(None, {"COMPORTA_SERVER__LISTEN": "", "COMPORTA_CONFIG": ""}).settings == loaded(None).settings


@pytest.mark.parametrize("name", ["COMPORTA_LISTEN", "COMPORTA_SERVER_LISTEN", "COMPORTA_SERVER__", "COMPORTA_X"])
def test_a_variable_that_sets_nothing_is_told(loaded: Load, name: str):
    (warning,) = loaded(None, {name: "x"}).warnings
    assert f"environment variable {name} sets nothing" in str(warning)


@pytest.mark.parametrize("name", ["COMPORTA_LISTEN", "COMPORTA_SERVER_LISTEN"])
def test_a_variable_that_nearly_sets_something_is_told_which(loaded: Load, name: str):
    (warning,) = loaded(None, {name: "x"}).warnings
    assert "did you mean COMPORTA_SERVER__LISTEN?" in str(warning)


def test_what_kubernetes_sets_beside_a_service_of_this_name_is_no_configuration(loaded: Load):
    environ = {
        "COMPORTA_SERVICE_HOST": "10.0.0.1",
        "COMPORTA_SERVICE_PORT": "80",
        "COMPORTA_SERVICE_PORT_HTTP": "80",
        "COMPORTA_PORT": "tcp://10.0.0.1:80",
        "COMPORTA_PORT_80_TCP": "tcp://10.0.0.1:80",
        "COMPORTA_PORT_80_TCP_ADDR": "10.0.0.1",
        "COMPORTA_ADMIN_SERVICE_HOST": "10.0.0.2",
    }
    assert loaded(None, environ).warnings == []
