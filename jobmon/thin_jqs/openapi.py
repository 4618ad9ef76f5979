"""JQS's OpenAPI document, made from the views' columns and the rows of ``jqs_route``."""

from __future__ import annotations

from typing import Any

from jobmon.thin_common import openapi, positions
from jobmon.thin_jqs.catalog import Catalog, Column, Route, View

_TRANSPORT = ("INVALID_ARGUMENT", "UNKNOWN_ARGUMENT", "INVALID_POSITION", "OVERLOADED", "REPLICA_BEHIND")
_ROUTE_TRANSPORT = ("MISSING_ARGUMENT", *_TRANSPORT)


def _argument(
    name: str, schema: dict[str, Any], description: str = "", *, required: bool = False
) -> dict[str, Any]:
    argument: dict[str, Any] = {"name": name, "in": "query", "required": required, "schema": schema}
    if description:
        argument["description"] = description
    return argument


_MIN_POSITION = _argument(
    positions.ARGUMENT,
    {"type": "string"},
    f"a {positions.HEADER} of JSM's: the answer shows what was written by then;"
    f" or the header {positions.MIN_HEADER}",
)


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _list(key: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {key: {"type": "array", "items": {}}, **more}}


def _route(route: Route, secured: bool) -> dict[str, Any]:
    arguments = [_argument(column.name, column.openapi, required=True) for column in route.arguments]
    transport: tuple[str, ...] = _ROUTE_TRANSPORT if arguments else _TRANSPORT
    responses: dict[str, Any]
    if route.cardinality == "cursor":
        arguments = [
            _argument("cursor", {"type": "string"}, "of the last answer; `now` for no past changes at all"),
            _argument("dag_id", {"type": "integer", "format": "int64"}, "changes of this dag only"),
            _argument("limit", {"type": "integer", "minimum": 1}, "changes at most"),
        ]
        key = route.answer_key or route.view.name
        more = {"type": "boolean", "description": "whether more changes are there already"}
        answer = _list(key, cursor={"type": "string"}, more=more)
        responses = {"200": _json(answer, "Changes, and the cursor to go on from")}
        transport = ("INVALID_CURSOR", *_TRANSPORT)
    elif route.cardinality == "first":
        responses = {"200": _json({"type": "object"}, "The document")}
        if route.none_status != 200:
            responses[str(route.none_status)] = {"description": "There is none"}
    else:
        described = "All documents"
        if route.cardinality == "page":
            own = route.id_column
            arguments += [
                _argument("after", {"type": "integer", "minimum": 0}, f"with a larger {own} only"),
                _argument("limit", {"type": "integer", "minimum": 1}, "documents at most"),
            ]
            described = f"Documents by {own}; ask again after the last one until fewer than limit come"
        responses = {"200": _json(_list(route.answer_key or route.view.name), described)}
    return {
        "operationId": route.view.name,
        "summary": route.description,
        "parameters": [*arguments, _MIN_POSITION],
        "responses": {**responses, **openapi.error_responses((), transport, secured)},
    }


def _view(view: View, secured: bool) -> dict[str, Any]:
    def argument(column: Column) -> dict[str, Any]:
        return _argument(column.name, column.openapi, description="rows with this value only")

    row = {"type": "object", "properties": {column.name: column.openapi for column in view.columns.values()}}
    answer = {"type": "object", "properties": {view.name: {"type": "array", "items": row}}}
    return {
        "operationId": view.name,
        "summary": f"Rows of {view.name}",
        "parameters": [
            *(argument(column) for column in view.columns.values()),
            _argument("limit", {"type": "integer", "minimum": 1}, description="rows at most"),
            _argument("offset", {"type": "integer", "minimum": 0}, description="rows to leave out"),
            _MIN_POSITION,
        ],
        "responses": {"200": _json(answer, "The rows"), **openapi.error_responses((), _TRANSPORT, secured)},
    }


def document(catalog: Catalog, secured: bool) -> dict[str, Any]:
    """JQS's OpenAPI document.

    Parameters:
        catalog: the views and routes.
        secured: whether a bearer token is needed.
    """
    paths = {}
    for name, view in sorted(catalog.views.items()):
        route = catalog.routes.get(name)
        paths[f"/{name}"] = {"get": _route(route, secured) if route else _view(view, secured)}
    return openapi.document("Jobmon JQS", "The JobQueryServer: each path is a view.", paths, secured)
