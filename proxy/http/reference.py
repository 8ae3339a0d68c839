"""The description of the administration for people: Swagger UI, where its files are installed, else a page of our own without any script.

Nothing comes from another server, and nothing is kept: the key that is typed in stays in the page. Swagger UI's files are those of the
package flask-swagger-ui (`pip install comporta[docs]`), of which no code is run. Source: https://swagger.io/docs/open-source-tools/swagger-ui/
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from html import escape
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

WHERE = "/admin/docs"

_PACKAGE, _FOLDER = "flask-swagger-ui", "flask_swagger_ui/dist"
_BUNDLE, _STYLE, _ICON, _START = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "start.js"

#: The files that are served, and no other.
_FILES = {_BUNDLE: "text/javascript", _STYLE: "text/css", _ICON: "image/png"}

#: Beside its own files Swagger UI draws pictures that stand in its style sheet, and asks this server.
_SWAGGER_POLICY = "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"

_SWAGGER_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>comporta: administration</title>
<link rel="stylesheet" href="docs/{_STYLE}">
<link rel="icon" href="docs/{_ICON}">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/{_BUNDLE}"></script>
<script src="docs/{_START}"></script>
</body>
</html>
"""

_SWAGGER_START = """SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: "none",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""

_OWN_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
summary { cursor: pointer; padding: .3rem 0 }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { background: #f4f4f4; padding: .7rem; overflow: auto }
td, th { padding: .1rem 1rem .1rem 0; text-align: left }
.method { display: inline-block; width: 4.5rem; font-weight: 600 }
"""

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add(table: web.UrlDispatcher, described: Callable[[], Mapping[str, Any]], folder: Path | None) -> None:
    """Have `table` serve the page of the OpenAPI document that `described` makes when somebody asks for the page.

    `folder` has Swagger UI's files, None: the page is our own.
    """
    if folder is None:
        style = base64.b64encode(hashlib.sha256(_OWN_STYLE.encode()).digest()).decode()
        table.add_get(WHERE, _text(lambda: "\n".join(_own_page(described())), "text/html", f"style-src 'sha256-{style}'"))
        return
    table.add_get(WHERE, _text(lambda: _SWAGGER_PAGE, "text/html", _SWAGGER_POLICY))
    table.add_get(f"{WHERE}/{_START}", _text(lambda: _SWAGGER_START, "text/javascript"))
    for name, kind in _FILES.items():
        table.add_get(f"{WHERE}/{name}", _file(folder / name, kind))


def swagger_files(package: str = _PACKAGE) -> Path | None:
    """The folder with the files of Swagger UI, where the package that brings them is installed."""
    try:
        folder = Path(str(distribution(package).locate_file(_FOLDER)))
    except PackageNotFoundError:
        return None
    return folder if all((folder / name).is_file() for name in _FILES) else None


def _headers(policy: str = "") -> dict[str, str]:
    """Nothing is loaded, sent or shown elsewhere, but for what `policy` names."""
    rules = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"{rules}; {policy}" if policy else rules,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _text(text: Callable[[], str], kind: str, policy: str = "") -> Page:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=await asyncio.to_thread(text), content_type=kind, headers=_headers(policy))

    return page


def _file(path: Path, kind: str) -> Page:
    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path, headers={**_headers(), "Content-Type": kind})

    return file


# ------------------------------------------------------------------------------------------------------------------------ our own page
def _own_page(described: Mapping[str, Any]) -> Iterator[str]:
    title = escape(described["info"]["title"])
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_OWN_STYLE}</style></head><body>'
    yield f"<h1>{title}</h1>"
    yield '<p>As a document: <a href="../openapi.json">openapi.json</a>.'
    yield "The administrator's key is shown as <code>Authorization: Bearer …</code></p>"
    subject = None
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != subject:
                subject = operation["tags"][0]
                yield f"<h2>{escape(subject)}</h2>"
            yield from _operation(method.upper(), path, operation)
    yield "<h2>What the JSON holds</h2>"
    for name, schema in described["components"]["schemas"].items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_code(schema)}</details>'
    yield "</body></html>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    head = f'<span class="method">{method}</span> <code>{escape(path)}</code> {escape(operation["summary"])}'
    yield f'<details id="{escape(operation["operationId"])}"><summary>{head}</summary>'
    if operation["parameters"]:
        yield "<table><tr><th>parameter</th><th>in</th><th></th></tr>"
        for one in operation["parameters"]:
            yield f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td><td>{escape(one.get('description', ''))}</td></tr>"
        yield "</table>"
    if "requestBody" in operation:
        yield f"<p>It takes {_named(operation['requestBody'])}.</p>"
    for status, answer in operation["responses"].items():
        yield f"<p><code>{status}</code> {escape(answer['description'])} {_named(answer)}</p>"
    yield "</details>"


def _named(holder: Mapping[str, Any]) -> str:
    """A link to the schema of a body."""
    schema = holder.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return ""
    name = escape(schema["$ref"].rpartition("/")[2]) if "$ref" in schema else ""
    return f'<a href="#{name}"><code>{name}</code></a>' if name else _code(schema)


def _code(value: Any) -> str:
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
