"""What a client may ask, as one literal table: operation, methods, path. Whatever is not in it is refused.

The pass-through routes are those of OpenAI's published API description (https://github.com/openai/openai-openapi) and of its Python
library, which is ahead of it; a test compares them. Of the realtime API only what is HTTP: its WebSocket (`GET /realtime`) is not.
Then what servers of open models have beside it: `/rerank`, `/score`, `/classify`, `/pooling`, `/tokenize`, `/detokenize`
(https://docs.vllm.ai/en/stable/serving/online_serving/); and Mistral's `/fim/completions` (https://docs.mistral.ai/api/).
The operation groups routes for the record and for what a key may be granted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

_TABLE = """
chat            POST             /chat/completions
completion      POST             /completions
completion      POST             /fim/completions
embedding       POST             /embeddings
models          GET              /models
models          GET,DELETE       /models/{model}
llm             GET              /llm/models
llm             GET              /llm/config/preview
llm_config      GET,PUT,DELETE   /users/llm-config

stored_chat     GET              /chat/completions
stored_chat     GET,POST,DELETE  /chat/completions/{completion_id}
stored_chat     GET              /chat/completions/{completion_id}/messages

responses       POST             /responses
responses       POST             /responses/compact
responses       POST             /responses/input_tokens
stored_response GET,DELETE       /responses/{response_id}
stored_response POST             /responses/{response_id}/cancel
stored_response GET              /responses/{response_id}/input_items
conversations   POST             /conversations
conversations   GET,POST,DELETE  /conversations/{conversation_id}
conversations   GET,POST         /conversations/{conversation_id}/items
conversations   GET,DELETE       /conversations/{conversation_id}/items/{item_id}

audio           POST             /audio/speech
audio           POST             /audio/transcriptions
audio           POST             /audio/translations
audio           POST             /audio/voices
audio           DELETE           /audio/voices/{voice_id}
audio           GET,POST         /audio/voice_consents
audio           GET,POST,DELETE  /audio/voice_consents/{consent_id}
images          POST             /images/generations
images          POST             /images/edits
images          POST             /images/variations
moderations     POST             /moderations
moderations     POST             /content_provenance_checks
decisions       POST             /decisions
rerank          POST             /rerank
score           POST             /score
classify        POST             /classify
pooling         POST             /pooling
tokenize        POST             /tokenize
tokenize        POST             /detokenize
videos          GET,POST         /videos
videos          POST             /videos/characters
videos          GET              /videos/characters/{character_id}
videos          POST             /videos/edits
videos          POST             /videos/extensions
videos          GET,DELETE       /videos/{video_id}
videos          GET              /videos/{video_id}/content
videos          POST             /videos/{video_id}/remix

files           GET,POST         /files
files           GET,DELETE       /files/{file_id}
files           GET              /files/{file_id}/content
uploads         POST             /uploads
uploads         POST             /uploads/{upload_id}/cancel
uploads         POST             /uploads/{upload_id}/complete
uploads         POST             /uploads/{upload_id}/parts
batches         GET,POST         /batches
batches         GET              /batches/{batch_id}
batches         POST             /batches/{batch_id}/cancel

vector_stores   GET,POST         /vector_stores
vector_stores   GET,POST,DELETE  /vector_stores/{vector_store_id}
vector_stores   POST             /vector_stores/{vector_store_id}/file_batches
vector_stores   GET              /vector_stores/{vector_store_id}/file_batches/{batch_id}
vector_stores   POST             /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel
vector_stores   GET              /vector_stores/{vector_store_id}/file_batches/{batch_id}/files
vector_stores   GET,POST         /vector_stores/{vector_store_id}/files
vector_stores   GET,POST,DELETE  /vector_stores/{vector_store_id}/files/{file_id}
vector_stores   GET              /vector_stores/{vector_store_id}/files/{file_id}/content
vector_stores   POST             /vector_stores/{vector_store_id}/search

fine_tuning     POST             /fine_tuning/alpha/graders/run
fine_tuning     POST             /fine_tuning/alpha/graders/validate
fine_tuning     GET,POST         /fine_tuning/checkpoints/{checkpoint}/permissions
fine_tuning     DELETE           /fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}
fine_tuning     GET,POST         /fine_tuning/jobs
fine_tuning     GET              /fine_tuning/jobs/{job_id}
fine_tuning     POST             /fine_tuning/jobs/{job_id}/cancel
fine_tuning     GET              /fine_tuning/jobs/{job_id}/checkpoints
fine_tuning     GET              /fine_tuning/jobs/{job_id}/events
fine_tuning     POST             /fine_tuning/jobs/{job_id}/pause
fine_tuning     POST             /fine_tuning/jobs/{job_id}/resume

assistants      GET,POST         /assistants
assistants      GET,POST,DELETE  /assistants/{assistant_id}
assistants      POST             /threads
assistants      POST             /threads/runs
assistants      GET,POST,DELETE  /threads/{thread_id}
assistants      GET,POST         /threads/{thread_id}/messages
assistants      GET,POST,DELETE  /threads/{thread_id}/messages/{message_id}
assistants      GET,POST         /threads/{thread_id}/runs
assistants      GET,POST         /threads/{thread_id}/runs/{run_id}
assistants      POST             /threads/{thread_id}/runs/{run_id}/cancel
assistants      GET              /threads/{thread_id}/runs/{run_id}/steps
assistants      GET              /threads/{thread_id}/runs/{run_id}/steps/{step_id}
assistants      POST             /threads/{thread_id}/runs/{run_id}/submit_tool_outputs
chatkit         POST             /chatkit/sessions
chatkit         POST             /chatkit/sessions/{session_id}/cancel
chatkit         GET              /chatkit/threads
chatkit         GET,DELETE       /chatkit/threads/{thread_id}
chatkit         GET              /chatkit/threads/{thread_id}/items

containers      GET,POST         /containers
containers      GET,DELETE       /containers/{container_id}
containers      GET,POST         /containers/{container_id}/files
containers      GET,DELETE       /containers/{container_id}/files/{file_id}
containers      GET              /containers/{container_id}/files/{file_id}/content
skills          GET,POST         /skills
skills          GET,POST,DELETE  /skills/{skill_id}
skills          GET              /skills/{skill_id}/content
skills          GET,POST         /skills/{skill_id}/versions
skills          GET,DELETE       /skills/{skill_id}/versions/{version}
skills          GET              /skills/{skill_id}/versions/{version}/content
evals           GET,POST         /evals
evals           GET,POST,DELETE  /evals/{eval_id}
evals           GET,POST         /evals/{eval_id}/runs
evals           GET,POST,DELETE  /evals/{eval_id}/runs/{run_id}
evals           POST             /evals/{eval_id}/runs/{run_id}/cancel
evals           GET              /evals/{eval_id}/runs/{run_id}/output_items
evals           GET              /evals/{eval_id}/runs/{run_id}/output_items/{item_id}

agents          GET,POST         /agents
agents          GET,POST,DELETE  /agents/{agent_id}
agents          GET,POST         /agents/automations
agents          GET,POST,DELETE  /agents/automations/{automation_id}
agents          GET,POST         /agents/automations/{automation_id}/invocations
agents          GET              /agents/automations/{automation_id}/invocations/{invocation_id}
agents          POST             /agents/automations/{automation_id}/pause
agents          POST             /agents/automations/{automation_id}/resume
agents          GET,POST         /agents/environments
agents          GET              /agents/environments/{environment_id}
agents          GET,POST         /agents/environments/{environment_id}/files
agents          GET,POST         /agents/environments/templates
agents          GET,POST,DELETE  /agents/environments/templates/{template_id}
agents          GET,POST         /agents/sessions
agents          GET,POST,DELETE  /agents/sessions/{session_id}
agents          GET              /agents/sessions/{session_id}/artifacts
agents          GET,DELETE       /agents/sessions/{session_id}/artifacts/{artifact_id}
agents          GET              /agents/sessions/{session_id}/artifacts/{artifact_id}/content
agents          GET,POST         /agents/sessions/{session_id}/events
agents          GET              /agents/sessions/{session_id}/items
agents          GET              /agents/sessions/{session_id}/subagents
agents          GET              /agents/sessions/{session_id}/subagents/{subagent_id}
agents          GET              /agents/sessions/{session_id}/subagents/{subagent_id}/items
agents          GET              /agents/sessions/{session_id}/subagents/{subagent_id}/turns
agents          GET              /agents/sessions/{session_id}/subagents/{subagent_id}/turns/{turn_id}
agents          GET              /agents/sessions/{session_id}/subagents/{subagent_id}/turns/{turn_id}/items
agents          GET              /agents/sessions/{session_id}/traces
agents          GET              /agents/sessions/{session_id}/turns
agents          GET              /agents/sessions/{session_id}/turns/{turn_id}
agents          GET              /agents/sessions/{session_id}/turns/{turn_id}/items
vaults          GET,POST         /vaults
vaults          GET,POST,DELETE  /vaults/{vault_id}
vaults          GET,POST         /vaults/{vault_id}/credentials
vaults          GET,POST,DELETE  /vaults/{vault_id}/credentials/{credential_id}

realtime        POST             /realtime/calls
realtime        POST             /realtime/calls/{call_id}/accept
realtime        POST             /realtime/calls/{call_id}/hangup
realtime        POST             /realtime/calls/{call_id}/refer
realtime        POST             /realtime/calls/{call_id}/reject
realtime        POST             /realtime/client_secrets
realtime        POST             /realtime/sessions
realtime        POST             /realtime/transcription_sessions
realtime        POST             /realtime/translations/client_secrets
live            POST             /live/sessions
live            POST             /live/sessions/{session_id}/accept
live            GET              /live/sessions/{session_id}/content
live            POST             /live/sessions/{session_id}/fork
live            POST             /live/sessions/{session_id}/hangup
live            POST             /live/sessions/{session_id}/refer
live            POST             /live/sessions/{session_id}/reject
webhooks        GET              /webhook_event_types
webhooks        GET,POST         /webhook_endpoints
webhooks        GET,POST,DELETE  /webhook_endpoints/{endpoint_id}
webhooks        POST             /webhook_endpoints/{endpoint_id}/rotate_secret
webhooks        POST             /webhook_endpoints/{endpoint_id}/test
safety          GET              /safety/alerts/{alert_id}
safety          GET              /safety/cases/{case_id}

organization    GET,POST         /organization/admin_api_keys
organization    GET,DELETE       /organization/admin_api_keys/{key_id}
organization    GET              /organization/audit_logs
organization    GET,POST         /organization/certificates
organization    POST             /organization/certificates/activate
organization    POST             /organization/certificates/deactivate
organization    GET,POST,DELETE  /organization/certificates/{certificate_id}
organization    GET              /organization/costs
organization    GET,POST         /organization/data_retention
organization    GET,POST         /organization/external_keys
organization    GET,DELETE       /organization/external_keys/{key_id}
organization    POST             /organization/external_keys/{key_id}/validate
organization    GET,POST         /organization/external_storage
organization    GET,DELETE       /organization/external_storage/{storage_id}
organization    POST             /organization/external_storage/{storage_id}/validate
organization    GET,POST         /organization/groups
organization    GET,POST,DELETE  /organization/groups/{group_id}
organization    GET,POST         /organization/groups/{group_id}/roles
organization    GET,DELETE       /organization/groups/{group_id}/roles/{role_id}
organization    GET,POST         /organization/groups/{group_id}/users
organization    GET,DELETE       /organization/groups/{group_id}/users/{user_id}
organization    GET,POST         /organization/invites
organization    GET,DELETE       /organization/invites/{invite_id}
organization    GET,POST         /organization/projects
organization    GET,POST         /organization/projects/{project_id}
organization    GET              /organization/projects/{project_id}/api_keys
organization    GET,POST,DELETE  /organization/projects/{project_id}/api_keys/{api_key_id}
organization    POST             /organization/projects/{project_id}/archive
organization    GET              /organization/projects/{project_id}/certificates
organization    POST             /organization/projects/{project_id}/certificates/activate
organization    POST             /organization/projects/{project_id}/certificates/deactivate
organization    GET,POST         /organization/projects/{project_id}/data_retention
organization    GET,POST         /organization/projects/{project_id}/groups
organization    GET,DELETE       /organization/projects/{project_id}/groups/{group_id}
organization    GET,POST         /organization/projects/{project_id}/hosted_tool_permissions
organization    GET,POST,DELETE  /organization/projects/{project_id}/model_permissions
organization    GET              /organization/projects/{project_id}/rate_limits
organization    POST             /organization/projects/{project_id}/rate_limits/{rate_limit_id}
organization    GET,POST         /organization/projects/{project_id}/service_accounts
organization    GET,POST,DELETE  /organization/projects/{project_id}/service_accounts/{account_id}
organization    POST             /organization/projects/{project_id}/service_accounts/{account_id}/api_keys
organization    GET,POST         /organization/projects/{project_id}/service_tier_settings
organization    GET,POST         /organization/projects/{project_id}/spend_alerts
organization    GET,POST,DELETE  /organization/projects/{project_id}/spend_alerts/{alert_id}
organization    GET,POST,DELETE  /organization/projects/{project_id}/spend_limit
organization    GET,POST         /organization/projects/{project_id}/users
organization    GET,POST,DELETE  /organization/projects/{project_id}/users/{user_id}
organization    GET,POST         /organization/roles
organization    GET,POST,DELETE  /organization/roles/{role_id}
organization    GET,POST         /organization/spend_alerts
organization    GET,POST,DELETE  /organization/spend_alerts/{alert_id}
organization    GET,POST,DELETE  /organization/spend_limit
organization    GET              /organization/usage/{kind}
organization    GET              /organization/users
organization    GET,POST,DELETE  /organization/users/{user_id}
organization    GET,POST         /organization/users/{user_id}/roles
organization    GET,DELETE       /organization/users/{user_id}/roles/{role_id}
organization    GET,POST         /organization/workload_identity_providers
organization    GET,POST,DELETE  /organization/workload_identity_providers/{provider_id}
organization    GET,POST         /organization/workload_identity_providers/{provider_id}/federation_rules
organization    GET,POST,DELETE  /organization/workload_identity_providers/{provider_id}/federation_rules/{rule_id}
organization    GET,POST         /projects/{project_id}/groups/{group_id}/roles
organization    GET,DELETE       /projects/{project_id}/groups/{group_id}/roles/{role_id}
organization    GET,POST         /projects/{project_id}/roles
organization    GET,POST,DELETE  /projects/{project_id}/roles/{role_id}
organization    GET,POST         /projects/{project_id}/users/{user_id}/roles
organization    GET,DELETE       /projects/{project_id}/users/{user_id}/roles/{role_id}
"""

_SEPARATOR = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the table. `path` is what a request that matched it asked for, without `/v1` and in its canonical form."""

    operation: str
    path: str


def _rows() -> list[tuple[str, tuple[str, ...], str]]:
    rows = [line.split() for line in _TABLE.splitlines() if line.strip()]
    return [(operation, tuple(methods.split(",")), path) for operation, methods, path in rows]


ROWS = _rows()
OPERATIONS = tuple(dict.fromkeys(operation for operation, _, _ in ROWS))

Exact = dict[str, dict[str, Route]]


@dataclass(slots=True)
class _Node:
    """A place in a path: what may follow, a fixed segment before any other.

    `ending` are the operations, by method, of paths that end here; `rest` those of whatever follows.
    """

    fixed: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    ending: dict[str, str] = field(default_factory=dict)
    rest: dict[str, str] = field(default_factory=dict)


def _compiled() -> tuple[Exact, _Node]:
    """The table for looking up: paths without placeholders whole, the others segment by segment."""
    exact: Exact = {}
    root = _Node()
    for operation, methods, path in ROWS:
        if "{" in path:
            _plant(root, path, dict.fromkeys(methods, operation))
            continue
        for prefix in ("", "/v1"):
            exact.setdefault(prefix + path, {}).update({method: Route(operation, path) for method in methods})
    return exact, root


def _plant(node: _Node, path: str, operations: dict[str, str]) -> None:
    for segment in path.split("/")[1:]:
        if segment == "{model}":
            # A model's public name may hold slashes (`provider/model`); no other name does.
            node.rest.update(operations)
            return
        if segment.startswith("{"):
            node.any = node = node.any or _Node()
        else:
            node = node.fixed.setdefault(segment, _Node())
    node.ending.update(operations)


#: What a path must hold for `_is_devious` to be true of it.
_SUSPECT = re.compile(r"[%\\\x00-\x1f\x7f]|/\.")

#: What could end a line, or a string, to somebody behind us.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_EXACT, _ROOT = _compiled()
_NOTHING: dict[str, str] = {}


def find(method: str, path: str) -> Route | tuple[str, ...]:
    """The route of a request, by one look-up for those that have no placeholder.

    Where there is none, the methods that `path` does take (none: no such path).
    """
    methods = _EXACT.get(path)
    if methods is None and path.startswith("/"):
        path = _canonical(path)
        methods = _EXACT.get(path)
    if methods is not None:
        return methods.get(method) or tuple(sorted(methods))
    path = path.removeprefix("/v1")
    operations = _operations(path)
    if not operations or _is_devious(path):
        return ()
    return Route(operations[method], path) if method in operations else tuple(sorted(operations))


def _canonical(path: str) -> str:
    """A path without what joining a base URL to it leaves: slashes at its end, and more than one before or after the version.

    Those between other segments stay: there an id was left out, and without it the path would mean something else.
    """
    path = "/" + path.strip("/")
    return "/v1/" + path[4:].lstrip("/") if path.startswith("/v1//") else path


def _operations(path: str) -> dict[str, str]:
    """What the rows with placeholders say of a path: operations by method. Its costs grow with the path, not with the table."""
    first, *segments = path.split("/")
    if first:
        return _NOTHING
    node = _ROOT
    for segment in segments:
        if not segment:
            return _NOTHING
        following = node.fixed.get(segment) or node.any
        if following is None:
            return node.rest
        node = following
    return node.ending


def _is_devious(path: str) -> bool:
    """Whether a path is not the one that matched to somebody behind us who undoes its escapes.

    That is so where a segment is `.` or `..`, or an id holds control characters.
    """
    if _SUSPECT.search(path) is None:
        return False
    plain = unquote(path)
    return _CONTROL.search(plain) is not None or any(segment in (".", "..") for segment in _SEPARATOR.split(plain))
