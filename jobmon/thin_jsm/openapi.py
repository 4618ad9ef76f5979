"""JSM's OpenAPI document, made from the routines' COMMENTs and parameters."""

from __future__ import annotations

import re
from typing import Any

from jobmon.thin_common import openapi
from jobmon.thin_jsm.catalog import Catalog, Procedure
from jobmon.thin_jsm.coerce import openapi_schema

_TRANSPORT = (
    "MALFORMED_JSON",
    "NOT_AN_OBJECT",
    "UNKNOWN_PARAMETER",
    "INVALID_PARAMETER",
    "BODY_TOO_LARGE",
    "OVERLOADED",
)


def _operation(procedure: Procedure, catalog: Catalog, secured: bool) -> dict[str, Any]:
    sections = procedure.sections
    properties = {}
    for parameter in procedure.parameters:
        schema = openapi_schema(parameter.data_type, parameter.full_type)
        line = re.search(
            rf"^\W*(?:in_)?{re.escape(parameter.key)}\b[ \t]*[:,-]*[ \t]*(.*)$",
            sections.get("Parameters", ""),
            re.MULTILINE,
        )
        if line and line[1]:
            schema["description"] = line[1].strip()
        properties[parameter.key] = schema
    text = sections.get("Description", procedure.comment.strip())
    if "Example" in sections:
        text += "\n\nExample:\n\n    " + sections["Example"].replace("\n", "\n    ")
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", sections.get("Errors", "")))
    kinds = [kind for kind in catalog.errors.kinds.values() if kind.name in named]
    return {
        "operationId": procedure.name,
        "summary": text.split("\n", 1)[0][:120],
        "description": text,
        "requestBody": {
            "required": bool(properties),
            "content": {
                "application/json": {
                    "schema": {"type": "object", "properties": properties, "additionalProperties": False}
                }
            },
        },
        "responses": {
            "200": {
                "description": sections.get("Returns") or "The procedure's document.",
                "content": {"application/json": {"schema": {}}},
            },
            **openapi.error_responses(kinds, _TRANSPORT, secured),
        },
    }


def document(catalog: Catalog, secured: bool) -> dict[str, Any]:
    """JSM's OpenAPI document.

    Parameters:
        catalog: the procedures.
        secured: whether a bearer token is needed.
    """
    paths = {
        f"/{name}": {"post": _operation(procedure, catalog, secured)}
        for name, procedure in sorted(catalog.procedures.items())
    }
    return openapi.document(
        "Jobmon JSM", "The JobStateManager: each path is a stored procedure.", paths, secured
    )
