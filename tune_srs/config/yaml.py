"""YAML files: strictly read, and written so that they read back as they were."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tune_srs.errors import ConfigError

NULL = "null"  # None, as YAML spells it


class _StrictLoader(yaml.SafeLoader):
    """YAML without silently overwritten duplicates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} occurs twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; a `ConfigError` says why there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    # PyYAML does not wrap what its constructors raise, as for `2024-13-45`, `!!bool maybe`, `[[[[…`
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(f"{path}: expected `key: value` lines, but found {found}")
    return values


class _Dumper(yaml.SafeDumper):
    """Writes text so that it reads back as it was: Unicode's line breaks survive only in quotes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if set(data) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return `values` as YAML, in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
