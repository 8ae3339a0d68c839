"""The section `health`: how often each provider is asked whether it is there, and what follows from its answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.fields import Duration, Section


class HealthSettings(Section):
    """Each provider is asked for its list of models, over the same connections and with the same keys as requests."""

    interval: Annotated[Duration, Field(ge=0)] = Field(
        0.0, description='time between two checks of a provider ("30s"), a fifth more or less by chance; "0s": providers are not checked'
    )
    timeout: Annotated[Duration, Field(gt=0)] = Field(5.0, description="how long one check may take")
    failures: int = Field(2, ge=1, description="failed checks in a row after which a provider that was up is down")
    affects_routing: bool = Field(
        False, description="whether targets of a provider that is down come last; otherwise only the failures of requests decide that"
    )
    unlisted_models: Literal["ignore", "warn", "refuse"] = Field(
        "warn",
        description="what a model is that `models` names and its provider does not list: nothing, a warning of the first check, or a "
        "reason to refuse the configuration, for which the providers are asked at the start and at each reload",
    )

    @property
    def warns_once(self) -> bool:
        """Whether providers that are not checked are asked once, because somebody wrote that unlisted models are to be told."""
        return not self.interval and self.unlisted_models == "warn" and "unlisted_models" in self.model_fields_set
