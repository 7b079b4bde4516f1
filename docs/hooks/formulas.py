"""Formulas in fences of `math`, as MathML: browsers draw it, and no script has to be fetched."""

from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    fence = {"name": "math", "class": "math", "format": formula}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}


def formula(source: str, *_: Any, **__: Any) -> str:
    """LaTeX → a block of MathML."""
    return f"<div class='formula'>{convert(source, display='block')}</div>"
