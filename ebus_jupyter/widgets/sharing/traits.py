"""Which traits of a widget are shared, and the wire form of their values.

Some traits are a widget's value (a slider's ``value``, a dropdown's ``index``, a map's ``center``); the others are its look
or its parts. The default is to share the value:

- of ipywidgets' own controls, the traits that a person changes in a page: ``value``, ``index``, ``selected_index``;
- of the widgets named in `SHARED`, the traits listed there;
- of every other widget, all public synced traits except its look (`LOCAL`) and the traits that depend on the page's size
  or device (`DERIVED`).

A trait that holds widgets is not shared itself, because model ids mean nothing to another notebook. The widgets in it are
walked instead, and their traits have keys such as ``children/0/value``. Two notebooks share the keys that both have.
"""

from __future__ import annotations

import datetime
import fnmatch
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import ipywidgets
import traitlets

from . import adapters, markup

LOCAL = frozenset({"layout", "style", "tooltip", "description_tooltip", "tabbable", "comm", "log", "keys"})
"""Traits that stay local everywhere: a widget's look, not its value."""

SHARED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("@jupyter-widgets/controls", ""): ("value", "index", "selected_index", "format"),
    ("@jupyter-widgets/controls", "ControllerModel"): (),  # one person holds the gamepad
    ("@jupyter-widgets/output", ""): (),  # its outputs may show widgets of one kernel only
    ("jupyter-leaflet", "LeafletMapModel"): ("center", "zoom"),
    ("ipycanvas", "CanvasModel"): ("width", "height", "image_data"),
    ("ipydatagrid", "DataGridModel"): ("selections",),
}
"""Shared traits by model module and model name; "" stands for all models of the module."""

DERIVED: Mapping[str, frozenset[str]] = {
    "jupyter-leaflet": frozenset({"options", "modisdate", "window_url", "default_style", "dragging_style", "pane"}),
    "ipydatagrid": frozenset({"renderers", "default_renderer", "header_renderer", "corner_renderer", "grid_style"}),
    "bqplot": frozenset({"pixel_ratio", "tooltip_style", "scales_metadata"}),
}
"""Traits by model module that follow from other traits, or from the page's size or device."""

_REFERENCES = ("IPY_MODEL_", "anywidget:")


class SharedTrait(NamedTuple):
    """One trait of one widget, and the key of its value in the state."""

    widget: ipywidgets.Widget
    trait: str
    key: str


class Plan(NamedTuple):
    """The shared traits of a widget and of the widgets inside it.

    Attributes:
        shared: The shared traits.
        containers: The traits that hold the widgets inside, and those that decide whether others are markup: when one changes,
            the plan is out of date.
        withheld: The traits that would be shared if they were not `markup`.
    """

    shared: list[SharedTrait]
    containers: list[tuple[ipywidgets.Widget, str]]
    withheld: list[SharedTrait]


def plan(
    root: ipywidgets.Widget,
    traits: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    *,
    trust_markup: bool = False,
) -> Plan:
    """Choose the traits of ``root``, and of the widgets inside it, to share.

    Args:
        root: The widget.
        traits: Share only these: traits of ``root``, keys such as ``children/0/value``, or patterns with ``*``. The name of
            a trait that holds widgets stands for the default traits of these widgets. Default: see the module's docstring.
        exclude: Traits, keys or patterns to leave out.
        trust_markup: Share `markup`, too.

    Raises:
        ValueError: There is no such trait, or nothing to share.
    """
    wanted, without = as_names(traits), as_names(exclude) or ()
    found = Plan([], [], [])
    seen: set[str] = set()

    def walk(widget: ipywidgets.Widget, path: str) -> None:
        if widget.comm is None or widget.model_id in seen:
            return
        seen.add(widget.model_id)
        defaults = default_traits(widget)
        adapted = adapters.of(widget)
        withheld = frozenset() if trust_markup else markup.of(widget)
        if not trust_markup:
            found.containers.extend((widget, name) for name in markup.decided_by(widget))
        for name in sorted({*widget.keys, *adapted}):
            key = path + name
            if _matches(without, key) or name.startswith(("_model_", "_view_", "_dom_")):
                continue
            if name not in adapted and holds_widgets(widget, name):
                if name in LOCAL or name in DERIVED.get(widget._model_module, ()):
                    continue
                if wanted is not None or not name.startswith("_"):
                    found.containers.append((widget, name))
                    for place, inner in _widgets_in(getattr(widget, name)):
                        walk(inner, f"{key}/{place}")
            elif name in defaults if wanted is None else key in wanted or (name in defaults and _matches(wanted, key)):
                (found.withheld if name in withheld else found.shared).append(SharedTrait(widget, name, key))

    walk(root, "")
    keys = [shared.key for shared in (*found.shared, *found.withheld)] + [
        name for widget, name in found.containers if widget is root
    ]
    missing = [name for name in wanted or () if not any(_matches((name,), key) for key in keys)]
    if missing or not keys:
        synced = ", ".join(sorted(name for name in root.keys if not name.startswith("_") and name not in LOCAL))
        lacks = f"has no trait {missing[0]!r} to share" if missing else "has nothing that is shared by default"
        raise ValueError(f"{type(root).__name__} {lacks}; name some with traits=: it has {synced or 'none'}.")
    return found


def default_traits(widget: ipywidgets.Widget) -> frozenset[str]:
    """The traits and adapters of ``widget`` itself that are shared by default."""
    module, model = widget._model_module, widget._model_name
    adapted = adapters.of(widget).keys()
    chosen = SHARED.get((module, model), SHARED.get((module, "")))
    if chosen is not None:
        return frozenset(chosen).intersection(widget.keys) | adapted
    local = LOCAL | DERIVED.get(module, frozenset())
    return frozenset(name for name in widget.keys if not name.startswith("_") and name not in local) | adapted


def holds_widgets(widget: ipywidgets.Widget, name: str) -> bool:
    """True if the trait is meant to hold other widgets; it may be empty."""
    trait = widget.traits()[name]
    if trait.metadata.get("to_json") is ipywidgets.widget_serialization["to_json"] or _takes_widgets(trait):
        return True
    return next(_widgets_in(getattr(widget, name)), None) is not None


def _takes_widgets(trait: Any) -> bool:
    if isinstance(trait, traitlets.Instance) and not isinstance(trait, traitlets.Container | traitlets.Dict):
        return isinstance(trait.klass, type) and issubclass(trait.klass, ipywidgets.Widget)
    # anywidget's trait for any widget is recognized by name: its module is private.
    if type(trait).__name__ == "WidgetTrait":
        return True
    inner = [getattr(trait, name, None) for name in ("_trait", "_value_trait")]
    inner += [*(getattr(trait, "_traits", None) or ()), *(getattr(trait, "trait_types", None) or ())]
    return any(_takes_widgets(part) for part in inner if isinstance(part, traitlets.TraitType))


def _widgets_in(value: Any) -> Iterator[tuple[str, ipywidgets.Widget]]:
    """The widgets in ``value``, each with its path: ``""``, ``"0/"``, ``"x/"`` …"""
    if isinstance(value, ipywidgets.Widget):
        yield "", value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from ((f"{key}/{place}", widget) for place, widget in _widgets_in(value[key]))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"{index}/{place}", widget) for place, widget in _widgets_in(item))


def as_names(given: Iterable[str] | None) -> tuple[str, ...] | None:
    """The names in ``given``, which may also be a single one."""
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


def _matches(patterns: Iterable[str], key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, name) or fnmatch.fnmatchcase(key, f"{name}/*") for name in patterns)


# --- wire form ------------------------------------------------------------------------------------------------------


class UnshareableError(TypeError):
    """The value has no wire form."""


def to_wire(widget: ipywidgets.Widget, name: str) -> Any:
    """The trait's value, as the widget serializes it for pages.

    Raises:
        UnshareableError: The value means nothing to another notebook.
    """
    serialized = widget.get_state(name)[name]
    return portable(serialized, custom=widget.trait_metadata(name, "to_json", None) is not None)


def from_wire(widget: ipywidgets.Widget, name: str, value: Any) -> Any:
    """The value that `to_wire` made, deserialized by this widget."""
    deserialize = widget.trait_metadata(name, "from_json", None)
    if deserialize is not None:
        return deserialize(_as_comm(value, integers=True), widget)
    return value if isinstance(widget.traits()[name], traitlets.Bytes) else _as_comm(value)


def portable(value: Any, *, custom: bool = False) -> Any:
    """A copy of ``value`` in its wire form.

    Args:
        value: A serialized value.
        custom: The trait has a serializer of its own: a string in the value may refer to a widget.

    Raises:
        UnshareableError: The value holds or refers to a widget.
    """
    if isinstance(value, str):
        if custom and value.startswith(_REFERENCES):
            raise UnshareableError("it refers to another widget of this notebook")
        return str(value)
    if value is None or isinstance(value, bool | bytes):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, Mapping):
        return {str(key): portable(item, custom=custom) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [portable(item, custom=custom) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, ipywidgets.Widget):
        raise UnshareableError("it is another widget of this notebook")
    return value


def _as_comm(value: Any, *, integers: bool = False) -> Any:
    """``value`` as a comm delivers it, for deserializers that expect that.

    A comm delivers bytes as a memoryview, and a page's 3.0 as 3 (``integers``).
    """
    if isinstance(value, bytes):
        return memoryview(value)
    if integers and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _as_comm(item, integers=integers) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_comm(item, integers=integers) for item in value]
    return value


def equal(a: Any, b: Any) -> bool:
    """True if two wire values are equal. NaN equals NaN; True does not equal 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if hasattr(a, "tobytes") and hasattr(b, "tobytes"):
        return type(a) is type(b) and a.shape == b.shape and a.dtype == b.dtype and bool(a.tobytes() == b.tobytes())
    return bool(a == b)
