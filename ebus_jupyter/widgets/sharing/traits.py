"""What of a widget is shared, and how it travels.

A widget says something with a few of its traits (a slider's ``value``, a dropdown's ``index``, a map's ``center``), and
with the rest how it looks or what it is made of. Only the former is shared where the program does not choose:

- of ipywidgets' own controls what a person changes in a page: ``value``, ``index``, ``selected_index``;
- of the widgets named in `CHOSEN` what is listed there;
- of every other widget all public traits that it syncs, but not how it looks (`LOCAL`), nor what depends on the page's
  size or device (`NOISE`).

A trait that holds widgets does not travel: ids of models mean nothing to another notebook. It is walked instead, and the
traits of the widgets in it have keys such as ``children/0/value``. Two notebooks share the keys that both of them have.
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

from . import adapters

LOCAL = frozenset({"layout", "style", "tooltip", "description_tooltip", "tabbable", "comm", "log", "keys"})
"""Traits that are each person's own: how a widget looks, not what it says."""

CHOSEN: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("@jupyter-widgets/controls", ""): ("value", "index", "selected_index", "format"),
    ("@jupyter-widgets/controls", "ControllerModel"): (),  # the gamepad is in one person's hands
    ("@jupyter-widgets/output", ""): (),  # what a kernel prints shows widgets of that kernel
    ("jupyter-leaflet", "LeafletMapModel"): ("center", "zoom"),
    ("ipycanvas", "CanvasModel"): ("width", "height", "image_data"),
    ("ipydatagrid", "DataGridModel"): ("selections",),
}
"""By the name of the model's module, and of the model ("": all of the module): what is shared."""

NOISE: Mapping[str, frozenset[str]] = {
    "jupyter-leaflet": frozenset({"options", "modisdate", "window_url", "default_style", "dragging_style", "pane"}),
    "ipydatagrid": frozenset({"renderers", "default_renderer", "header_renderer", "corner_renderer", "grid_style"}),
    "bqplot": frozenset({"pixel_ratio", "tooltip_style", "scales_metadata"}),
}
"""By the name of the model's module: what follows from other traits, or from the page's size or device."""

_REFERENCES = ("IPY_MODEL_", "anywidget:")


class Spot(NamedTuple):
    """One trait of one widget, and the key of its value in the state."""

    widget: ipywidgets.Widget
    trait: str
    key: str


class Plan(NamedTuple):
    """What is shared of a widget and of those inside it, and the traits that say which those are."""

    spots: list[Spot]
    holders: list[tuple[ipywidgets.Widget, str]]


def plan(root: ipywidgets.Widget, traits: Iterable[str] | None = None, exclude: Iterable[str] = ()) -> Plan:
    """What to share of ``root``.

    Args:
        root: The widget.
        traits: Just these: traits of ``root``, keys such as ``children/0/value``, or patterns with ``*``; what names a trait
            that holds widgets stands for what is shared of them. None: the sensible default.
        exclude: What to leave out of it, named in the same way.

    Raises:
        ValueError: There is no such trait, or nothing to share.
    """
    wanted, without = _names(traits), _names(exclude) or ()
    found = Plan([], [])
    seen: set[str] = set()

    def walk(widget: ipywidgets.Widget, path: str) -> None:
        if widget.comm is None or widget.model_id in seen:
            return
        seen.add(widget.model_id)
        usual = default_traits(widget)
        spoken = adapters.of(widget)
        for name in sorted({*widget.keys, *spoken}):
            key = path + name
            if _matches(without, key) or name.startswith(("_model_", "_view_", "_dom_")):
                continue
            if name not in spoken and holds_widgets(widget, name):
                if name in LOCAL or name in NOISE.get(widget._model_module, ()):
                    continue
                if wanted is not None or not name.startswith("_"):
                    found.holders.append((widget, name))
                    for place, inner in _widgets_in(getattr(widget, name)):
                        walk(inner, f"{key}/{place}")
            elif name in usual if wanted is None else key in wanted or (name in usual and _matches(wanted, key)):
                found.spots.append(Spot(widget, name, key))

    walk(root, "")
    keys = [spot.key for spot in found.spots] + [name for widget, name in found.holders if widget is root]
    missing = [name for name in wanted or () if not any(_matches((name,), key) for key in keys)]
    if missing or not keys:
        synced = ", ".join(sorted(name for name in root.keys if not name.startswith("_") and name not in LOCAL))
        lacks = f"has no trait {missing[0]!r} to share" if missing else "has nothing that is shared by itself"
        raise ValueError(f"{type(root).__name__} {lacks}; name some with traits=: it has {synced or 'none'}.")
    return found


def default_traits(widget: ipywidgets.Widget) -> frozenset[str]:
    """What is shared of ``widget`` itself where the program does not choose."""
    module, model = widget._model_module, widget._model_name
    spoken = adapters.of(widget).keys()
    chosen = CHOSEN.get((module, model), CHOSEN.get((module, "")))
    if chosen is not None:
        return frozenset(chosen).intersection(widget.keys) | spoken
    local = LOCAL | NOISE.get(module, frozenset())
    return frozenset(name for name in widget.keys if not name.startswith("_") and name not in local) | spoken


def holds_widgets(widget: ipywidgets.Widget, name: str) -> bool:
    """Whether the trait is there to hold other widgets, also where it holds none just now."""
    trait = widget.traits()[name]
    if trait.metadata.get("to_json") is ipywidgets.widget_serialization["to_json"] or _takes_widgets(trait):
        return True
    return next(_widgets_in(getattr(widget, name)), None) is not None


def _takes_widgets(trait: Any) -> bool:
    if isinstance(trait, traitlets.Instance) and not isinstance(trait, traitlets.Container | traitlets.Dict):
        return isinstance(trait.klass, type) and issubclass(trait.klass, ipywidgets.Widget)
    # anywidget's trait for any widget, by name: its module is private.
    if type(trait).__name__ == "WidgetTrait":
        return True
    inner = [getattr(trait, name, None) for name in ("_trait", "_value_trait")]
    inner += [*(getattr(trait, "_traits", None) or ()), *(getattr(trait, "trait_types", None) or ())]
    return any(_takes_widgets(part) for part in inner if isinstance(part, traitlets.TraitType))


def _widgets_in(value: Any) -> Iterator[tuple[str, ipywidgets.Widget]]:
    """The widgets in ``value``, each with its place: ``""``, ``"0/"``, ``"x/"`` …"""
    if isinstance(value, ipywidgets.Widget):
        yield "", value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from ((f"{key}/{place}", widget) for place, widget in _widgets_in(value[key]))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"{index}/{place}", widget) for place, widget in _widgets_in(item))


def _names(given: Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


def _matches(patterns: Iterable[str], key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, name) or fnmatch.fnmatchcase(key, f"{name}/*") for name in patterns)


# --- values ---------------------------------------------------------------------------------------------------------


class UnshareableError(TypeError):
    """The value can't travel."""


def to_wire(widget: ipywidgets.Widget, name: str) -> Any:
    """The trait's value, as the widget packs it for pages.

    Raises:
        UnshareableError: It holds something that no other notebook could read.
    """
    packed = widget.get_state(name)[name]
    return portable(packed, packs=widget.trait_metadata(name, "to_json", None) is not None)


def from_wire(widget: ipywidgets.Widget, name: str, value: Any) -> Any:
    """What `to_wire` made, unpacked as this widget does it."""
    read = widget.trait_metadata(name, "from_json", None)
    if read is not None:
        return read(_as_comm(value, whole=True), widget)
    return value if isinstance(widget.traits()[name], traitlets.Bytes) else _as_comm(value)


def portable(value: Any, *, packs: bool = False) -> Any:
    """A copy of ``value`` made of what travels. ``packs``: a text in it may stand for a widget."""
    if isinstance(value, str):
        if packs and value.startswith(_REFERENCES):
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
        return {str(key): portable(item, packs=packs) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [portable(item, packs=packs) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, ipywidgets.Widget):
        raise UnshareableError("it is another widget of this notebook")
    return value


def _as_comm(value: Any, *, whole: bool = False) -> Any:
    """A comm brings binary as memoryviews, and from a page 3.0 as 3 (``whole``): so unpacking functions expect it."""
    if isinstance(value, bytes):
        return memoryview(value)
    if whole and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _as_comm(item, whole=whole) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_comm(item, whole=whole) for item in value]
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two values on the wire are the same: NaN is NaN, and True is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if hasattr(a, "tobytes") and hasattr(b, "tobytes"):
        return type(a) is type(b) and a.shape == b.shape and a.dtype == b.dtype and bool(a.tobytes() == b.tobytes())
    return bool(a == b)
