"""What an administrator decided: file, environment and flags, made into frozen, validated settings."""

from proxy.settings.loading import KEPT, Loaded, dump, load, load_lasting, restore, secret_warnings
from proxy.settings.messages import Problem, SettingsError
from proxy.settings.model import SIMULATED, Address, ServerSettings, Settings, TlsSettings, parse_address
from proxy.settings.models import ModelEntry, ModelTargets
from proxy.settings.source import Mark, mark_of

__all__ = [
    "KEPT",
    "SIMULATED",
    "Address",
    "Loaded",
    "Mark",
    "ModelEntry",
    "ModelTargets",
    "Problem",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "TlsSettings",
    "dump",
    "load",
    "load_lasting",
    "mark_of",
    "parse_address",
    "restore",
    "secret_warnings",
]
