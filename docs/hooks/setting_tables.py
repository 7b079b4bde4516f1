"""Tables of settings out of the JSON schemas, where a page says `<!-- settings: … -->`.

`model` is a section of the configuration, `space#ASHASettings` a model in the schema of a space by
its name there, `study` the study itself. `<!-- presets -->` lists the presets.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tune_srs import schema
from tune_srs.config.presets import PRESETS

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
UNBOUNDED = 2**63 - 1  # torch's largest seed, which tells a reader nothing


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = re.sub(r"<!-- settings: (\S+) -->", lambda found: _table(found[1]), markdown)
    return re.sub(r"<!-- presets -->", lambda _: _presets(), markdown)


def _table(name: str) -> str:
    model = _model(name)
    rows = [
        f"| `{key}` | {_values(field)} | {_default(key, field, model)} | {_described(field)} |"
        for key, field in model["properties"].items()
        if key != "type"  # the page has it above the table
    ]
    return "\n".join(["| setting | values | default | |", "|---|---|---|---|", *rows])


def _model(name: str) -> dict[str, Any]:
    """The schema of what a page calls by `name`; a KeyError if there is none."""
    kind, _, model = name.partition("#")
    if kind in schema.SCHEMAS:
        whole = schema.SCHEMAS[kind]()
        found: dict[str, Any] = whole["$defs"][model] if model else whole
        return found
    section = {k: v for k, v in schema.settings().items() if k.startswith(f"{name}.")}
    if not section:
        raise KeyError(f"no settings {name}")
    return {"properties": section}


def _values(field: Mapping[str, Any]) -> str:
    """What a setting may be: its choices, or its type and range."""
    if "anyOf" in field:
        return " or ".join(_values(one) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "$ref" in field or "oneOf" in field or field["type"] == "object":
        return "a mapping"
    if field["type"] == "array":
        return f"a list of {_values(field['items'])}"
    kind = {"null": "`null`", "boolean": "`true`, `false`"}.get(field["type"], field["type"])
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in BOUNDS.items()
        if field.get(key, UNBOUNDED) != UNBOUNDED
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _default(key: str, field: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if key in model.get("required", ()):
        return "required"
    if "default" not in field:
        return ""
    value = field["default"]
    return f"`{_yaml(value['type'] if isinstance(value, dict) else value)}`"


def _described(field: Mapping[str, Any]) -> str:
    """What a setting is; YAML's `null` in place of Python's None."""
    return re.sub(r"\bNone\b", "`null`", field.get("description", ""))


def _yaml(value: object) -> str:
    """`value` as one writes it into a file."""
    return value if isinstance(value, str) else json.dumps(value)


def _presets() -> str:
    """What each preset sets, side by side."""
    names = list(dict.fromkeys(key for values in PRESETS.values() for key in values))
    rows = [
        f"| `{key}` | " + " | ".join(_set(values, key) for values in PRESETS.values()) + " |"
        for key in names
    ]
    head = "| setting | " + " | ".join(f"`{name}`" for name in PRESETS) + " |"
    return "\n".join([head, "|---" * (len(PRESETS) + 1) + "|", *rows])


def _set(values: Mapping[str, Any], key: str) -> str:
    return f"`{_yaml(values[key])}`" if key in values else ""
