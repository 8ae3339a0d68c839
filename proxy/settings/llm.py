"""The section `llm`: which model, time limit, retries and parameters hold, by system and task type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from proxy.core.hierarchy import Hierarchy
from proxy.core.resolved import Preferences
from proxy.fields import Duration, Section

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TaskTypeName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Limit = Annotated[Duration, Field(gt=0)]
Retries = Annotated[int, Field(ge=0, le=10)]
Tokens = Annotated[int, Field(ge=1)]


class LevelTimeouts(Section):
    """How long one attempt may take, in place of what the provider's `timeouts` say. What is left out is inherited."""

    connect: Limit | None = Field(None, description="name resolution, TCP and TLS")
    first_token: Limit | None = Field(None, description="from sending to the first content; of whole answers, to the first byte")
    idle: Limit | None = Field(None, description="between two contents")
    total: Limit | None = Field(None, description="the whole attempt")
    min_tokens_per_second: Annotated[float, Field(gt=0)] | None = Field(
        None, description="what a stream must bring from its first content on"
    )
    window: Limit | None = Field(None, description="how long a stream may be slower than that")

    def set(self) -> dict[str, float]:
        """Those that are set, in seconds."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class TaskTypeSettings(Section):
    """What holds for one task type. What is left out is inherited."""

    model: ModelName | None = Field(None, description="the model that serves this task type")
    fallback_model: ModelName | None = Field(None, description="the model that answers when that one fails")
    timeout: Limit | None = Field(None, description="how long the whole answer may take")
    timeouts: LevelTimeouts = Field(default_factory=LevelTimeouts, description="how long one attempt may take")
    max_retries: Retries | None = Field(None, description="how often a failed attempt is made again; 0 is never")


class ModelParams(Section):
    """What fills a request to one model where the request itself says nothing, and how long that model's prompts may be."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="sampling temperature")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="nucleus of the sampling")
    max_tokens: Tokens | None = Field(None, description="longest answer, in tokens")
    context_window: Tokens | None = Field(None, description="longest prompt, in tokens; longer ones are refused before they are sent")


class UserPreferenceSettings(Section):
    """The models of users who have set none, by their tier."""

    premium_model: ModelName | None = Field(None, description="model of users of the premium tier")
    standard_model: ModelName | None = Field(None, description="model of all other users, whatever their tier, also without one")


class LlmSettings(Section):
    """Which model, time limit and retries hold: here for everyone, then by task type; a user and a request may say more."""

    default_model: ModelName | None = Field(None, description="the model where nothing more specific names one")
    fallback_model: ModelName | None = Field(None, description="the model that answers when the first one fails")
    timeout: Limit | None = Field(None, description="how long a whole answer may take")
    timeouts: LevelTimeouts = Field(default_factory=LevelTimeouts, description="how long one attempt may take")
    max_retries: Retries | None = Field(None, description="how often a failed attempt is made again; 0 is never")
    task_types: dict[TaskTypeName, TaskTypeSettings] = Field(default_factory=dict, description="a task type's name -> what holds for it")
    model_params: dict[ModelName, ModelParams] = Field(default_factory=dict, description="a model's name -> its parameters")
    user_preferences: UserPreferenceSettings = Field(
        default_factory=UserPreferenceSettings, description="models by the tier of the user, below what users set themselves"
    )
    alias: ModelName = Field("auto", description="as a request's model: choose for me")
    larger_model: ModelName | None = Field(
        None, description="takes prompts that are longer than their own model's context window; it needs a context_window itself"
    )
    allowed_models: list[ModelName] | None = Field(
        None, description="patterns of the models that may be used at all, such as llama3*; others are answered with 403"
    )
    unknown_models: Literal["warn", "refuse"] = Field(
        "warn", description="what a model is that is named in this section and that no provider would be asked for: a warning or a problem"
    )

    def hierarchy(self) -> Hierarchy:
        """The section as the policy wants it."""
        params = {name: found.model_dump(exclude={"context_window"}, exclude_none=True) for name, found in self.model_params.items()}
        return Hierarchy(
            Preferences(self.default_model, self.fallback_model, self.timeout, self.max_retries, timeouts=self.timeouts.set()),
            {
                name: Preferences(found.model, found.fallback_model, found.timeout, found.max_retries, timeouts=found.timeouts.set())
                for name, found in self.task_types.items()
            },
            params,
            {name: found.context_window for name, found in self.model_params.items() if found.context_window is not None},
            self.user_preferences.premium_model,
            self.user_preferences.standard_model,
            self.alias,
            self.larger_model,
            None if self.allowed_models is None else tuple(self.allowed_models),
        )

    def named_models(self) -> list[tuple[tuple[str, ...], str]]:
        """Every model that the section would have served, with the path that names it."""
        found: list[tuple[tuple[str, ...], Any]] = [
            (("default_model",), self.default_model),
            (("fallback_model",), self.fallback_model),
            (("larger_model",), self.larger_model),
            (("user_preferences", "premium_model"), self.user_preferences.premium_model),
            (("user_preferences", "standard_model"), self.user_preferences.standard_model),
        ]
        for name, entry in self.task_types.items():
            found += [(("task_types", name, "model"), entry.model), (("task_types", name, "fallback_model"), entry.fallback_model)]
        return [(("llm", *path), model) for path, model in found if model is not None]
