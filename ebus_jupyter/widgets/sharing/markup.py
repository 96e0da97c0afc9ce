"""Traits that a page renders as markup, and values that a widget may not take from others as they are.

Markup is code: a `<img onerror=…>` in an `HTML` widget runs in the page of everyone who shows it, with the rights of that
person. Who may write to the bus of a shared widget could so open files and terminals, and run cells, as all the others. A
trait that a page renders as markup, or loads from an address, is therefore not shared unless it is asked for by name:
``trust_markup=True``.

Markup are:

- the traits listed in `MARKUP`, by model module and model name;
- traits of widgets that are not listed there, if their names say so (`NAMES`);
- traits that their author has marked: ``traitlets.Unicode().tag(sync=True, markup=True)``;
- the values of an `Adapter` with ``markup = True``.

What a widget of another library makes of its other traits is for that library to say: it is as safe to share as its page
side is careful.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import ipywidgets

from ebus_jupyter.terminal import printable

from . import adapters

CONTROLS = "@jupyter-widgets/controls"

MARKUP: Mapping[tuple[str, str], tuple[str, ...]] = {
    (CONTROLS, "HTMLModel"): ("value",),
    (CONTROLS, "HTMLMathModel"): ("value",),
    (CONTROLS, "ImageModel"): ("format",),
    (CONTROLS, "AudioModel"): ("format",),
    (CONTROLS, "VideoModel"): ("format",),
    (CONTROLS, ""): ("description", "description_allow_html"),
    ("jupyter-leaflet", ""): ("*html*", "*attribution*", "*text*", "*title*", "*url*", "*name*", "legend*"),
    ("bqplot", ""): (),
    ("ipycanvas", ""): (),
    ("ipydatagrid", ""): (),
}
"""Traits, or patterns of their names, by model module and model name. "" stands for all models of the module."""

NAMES = re.compile(r"html|markdown|svg|attribution|(^|_)(css|esm|js|javascript|script)(_|$)", re.IGNORECASE)
"""What the name of a trait has in it that is markup or code, in a widget of a module that `MARKUP` does not know."""

URL_FORMAT = "url"
"""The format of an ipywidgets image, audio or video whose value is an address to load from."""


class MarkupError(ValueError):
    """A trait was named that a page renders as markup, or there is nothing else to share."""


def of(widget: ipywidgets.Widget) -> frozenset[str]:
    """The traits and adapters of ``widget`` that its page renders as markup now."""
    module, model = widget._model_module, widget._model_name
    patterns = (*MARKUP.get((module, ""), ()), *MARKUP.get((module, model), ()))
    named = {name for name in widget.keys if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if (module, "") not in MARKUP:
        named |= {name for name in widget.keys if NAMES.search(name)}
    named |= {name for name in widget.keys if widget.trait_metadata(name, "markup")}
    named |= {name for name, adapter in adapters.of(widget).items() if getattr(adapter, "markup", False)}
    if decided_by(widget) and getattr(widget, "format", "") == URL_FORMAT:
        named.add("value")
    return frozenset(named)


def decided_by(widget: ipywidgets.Widget) -> tuple[str, ...]:
    """The traits that decide whether others are markup."""
    is_medium = "format" in MARKUP.get((widget._model_module, widget._model_name), ())
    return ("format",) if is_medium else ()


# --- values that are taken only in a clean form -----------------------------------------------------------------------


def clean(widget: ipywidgets.Widget, trait: str, value: Any) -> Any:
    """A shared value as ``widget`` may take it."""
    cleaner = _CLEANERS.get((widget._model_module, widget._model_name, trait))
    return value if cleaner is None else cleaner(value)


def _clean_uploads(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return [
        {**each, "name": file_name(each["name"])} if isinstance(each, dict) and "name" in each else each
        for each in value
    ]


def file_name(name: Any) -> str:
    """The name of an uploaded file, without the folders that a browser never sends: programs make paths of it."""
    last = re.split(r"[/\\:\x00]", str(name))[-1]
    kept = printable(last).lstrip(".").strip()
    return kept or "file"


_CLEANERS: Mapping[tuple[str, str, str], Callable[[Any], Any]] = {
    (CONTROLS, "FileUploadModel", "value"): _clean_uploads
}
