"""Doctests of docstrings as blocks of code, which Markdown would take for quotations."""

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a fence around each paragraph of a docstring that begins with a prompt."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            parts = re.split(r"\n{2,}", obj.docstring.value)
            fenced = [f"```pycon\n{one}\n```" if one.startswith(">>>") else one for one in parts]
            obj.docstring.value = "\n\n".join(fenced)
