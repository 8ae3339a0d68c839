"""Loading a configuration that a test writes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import Loaded, Problem, SettingsError, load

Load = Callable[..., Loaded]
Refused = Callable[..., list[Problem]]


def provider(loaded: Loaded, name: str) -> Any:
    """A provider's section; which class it has depends on its kind."""
    return loaded.settings.providers[name]


def check_told(problems: list[Problem], line: int, path: str, said: str) -> None:
    """One of `problems` has this place and says this."""
    found = {problem.path: problem for problem in problems}
    assert path in found, problems
    assert found[path].line == line, found[path]
    assert said in str(found[path])


def nobody_listens(_host: str, _port: int) -> bool:
    return False


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """`loaded(text, environ, flags)`: the settings of a file that holds `text`; None is no file."""

    def loaded(text: str | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None) -> Loaded:
        path = None
        if text is not None:
            path = tmp_path / "gateway.yaml"
            path.write_text(text, encoding="utf-8")
        return load(path, environ or {}, flags or {}, probe=nobody_listens)

    return loaded


@pytest.fixture
def refused(loaded: Load) -> Refused:
    """The problems of a configuration that must not load."""

    def refused(*args: Any) -> list[Problem]:
        with pytest.raises(SettingsError) as caught:
            loaded(*args)
        return caught.value.problems

    return refused
