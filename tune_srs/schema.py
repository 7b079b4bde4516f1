"""JSON schemas of the files that a user writes, from the models that validate them.

Editors complete and check by them. A schema knows names, types, ranges and choices; what depends on
several settings at once is checked when a command reads the file.
"""

from collections.abc import Iterable
from typing import Any

from tune_srs.config.presets import PRESET, PRESETS
from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import Settings
from tune_srs.space.parameters import NOT_SEARCHABLE, Categorical, Float, Int
from tune_srs.space.search import SearchSettings
from tune_srs.space.space import SpaceFile
from tune_srs.studies.entries import OF_THE_DATA, Entry
from tune_srs.studies.spec import Study, Tuning

Schema = dict[str, Any]
# the draft that editors know, though the name `$defs` came later
DRAFT = "http://json-schema.org/draft-07/schema#"


def config_schema() -> Schema:
    """Return the schema of a trial's configuration, such as an exported `config.yaml`."""
    schema = TrialConfig.model_json_schema()
    schema["properties"] = {PRESET: _preset()} | schema["properties"]
    return {"$schema": DRAFT} | schema


def space_schema() -> Schema:
    """Return the schema of a search space."""
    known = settings()
    searched = [name for name in known if not name.startswith(NOT_SEARCHABLE)]
    schema = _narrowed(
        SpaceFile,
        search=_reference("SearchSettings"),
        fixed=_values(known),
        params=_parameters(searched) | {"minProperties": 1},
        first={"type": "array", "items": _values(searched)},
    )
    return {"$schema": DRAFT} | schema | {"$defs": _shared()}


def study_schema() -> Schema:
    """Return the schema of a study."""
    known = settings()
    of_the_data = [name for name in known if name.startswith(OF_THE_DATA)]
    of_a_run = [name for name in known if name not in (*of_the_data, "train.seed")]
    searched = [name for name in of_a_run if not name.startswith(NOT_SEARCHABLE)]
    shared = _shared()
    for one in ("metric", "mode"):  # a study sets them by `select`
        del shared["SearchSettings"]["properties"][one]
    shared["Entry"] = _narrowed(
        Entry,
        fixed=_values(of_a_run),
        params=_parameters(searched),
        grid=_lists(of_a_run),
    )
    shared["Tuning"] = _narrowed(
        Tuning, search=_reference("SearchSettings"), params=_parameters(searched)
    )
    schema = _narrowed(
        Study,
        datasets=_named(_values(of_the_data)),
        fixed=_values(of_a_run),
        configurations=_named(_reference("Entry")),
    )
    return {"$schema": DRAFT} | schema | {"$defs": shared}


def _narrowed(model: type[Settings], **fields: Schema) -> Schema:
    """Return the schema of `model`, with `fields` in place of those that it leaves open."""
    schema = model.model_json_schema()
    for name, field in fields.items():
        description = schema["properties"][name]["description"]
        schema["properties"][name] = {"description": description} | field
    return schema


def settings(model: type[Settings] = TrialConfig, prefix: str = "") -> dict[str, Schema]:
    """Return the schema of each setting by its dotted name, in order; `preset` comes first."""
    found = {} if prefix else {PRESET: _preset()}
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            found |= settings(section, f"{prefix}{name}.")
        else:
            found[prefix + name] = properties[name]
    return found


def _preset() -> Schema:
    return {
        "enum": list(PRESETS),
        "description": "a named set of settings; other settings replace its own",
    }


def _shared() -> dict[str, Schema]:
    """Return what `$ref`s point to: every setting, the distributions, the search's settings."""
    search = SearchSettings.model_json_schema()
    known = settings()
    shared: dict[str, Schema] = known | search.pop("$defs") | {"SearchSettings": search}
    for field in ("scheduler", "sampler"):
        whole = search["properties"][field]
        kinds = [shared[one["$ref"].rpartition("/")[2]] for one in whole["oneOf"]]
        for kind in kinds:
            kind["required"] = ["type"]
        names = [kind["properties"]["type"]["const"] for kind in kinds]
        whole["anyOf"] = [{"enum": names}, {"oneOf": whole.pop("oneOf")}]
    for distribution in (Categorical, Float, Int):
        shared[distribution.__name__] = _narrowed(distribution, when=_lists(known))
    return shared


def _values(names: Iterable[str]) -> Schema:
    """Return the schema of a mapping from settings to values."""
    return _mapping({name: _reference(name) for name in names})


def _lists(names: Iterable[str]) -> Schema:
    """Return the schema of a mapping from settings to lists of values."""
    return _mapping({name: {"type": "array", "items": _reference(name)} for name in names})


def _parameters(names: Iterable[str]) -> Schema:
    """Return the schema of a mapping from settings to distributions."""
    known = settings()
    return _mapping({name: _distribution(name, _types(known[name])) for name in names})


def _distribution(name: str, types: set[str]) -> Schema:
    """Return the schema of choices among a setting's values, or of a range of its numbers."""
    value = _reference(name)
    kinds = [_within(Categorical, choices={"items": value})]
    if types & {"number", "integer"}:
        kinds.append(_within(Int, low=value, high=value))
    if "number" in types:
        kinds.append(_within(Float, low=value, high=value))
    return {"oneOf": kinds}


def _within(distribution: type[Settings], **properties: Schema) -> Schema:
    return {"allOf": [_reference(distribution.__name__), {"properties": properties}]}


def _types(setting: Schema) -> set[str]:
    return {str(one.get("type")) for one in setting.get("anyOf", [setting])}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _mapping(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _named(values: Schema) -> Schema:
    """Return the schema of a mapping whose keys the user chooses."""
    return {"type": "object", "minProperties": 1, "additionalProperties": values}


SCHEMAS = {"config": config_schema, "space": space_schema, "study": study_schema}
