"""Markup is not shared unless it is trusted, and what others share is taken only in a clean form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets as widgets
import pytest
import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from ebus_jupyter.widgets.sharing import adapters, markup
from tests.client.conftest import Line

from .notebook import FakePage, settled, share_of, until

ATTACK = "<img src=x onerror=alert(1)>"


class Card(anywidget.AnyWidget):
    _esm = "export default {}"
    html = traitlets.Unicode().tag(sync=True)
    body = traitlets.Unicode().tag(sync=True, markup=True)
    title = traitlets.Unicode().tag(sync=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: widgets.HTML("mine"),
        lambda: widgets.HTMLMath("mine"),
        lambda: widgets.Image(value=b"https://mine.example/a.png", format="url"),
        lambda: widgets.Video(value=b"https://mine.example/a.mp4", format="url"),
        lambda: widgets.Audio(value=b"https://mine.example/a.mp3", format="url"),
    ],
)
@pytest.mark.asyncio
async def test_widget_that_is_all_markup_is_not_shared_by_default(
    make: Callable[[], Any], notebook_client: Client
) -> None:
    widget = make()
    before = widget.value
    with pytest.raises(ValueError, match="is markup"):
        ebus.share(widget, "news")
    with pytest.raises(ValueError, match="trust_markup=True"):
        ebus.share(widget, "news", traits=["value"])
    with pytest.raises(ValueError, match="is markup"):
        ebus.link((widget, "value"), notebook_client.state("dash"), "news")
    assert widget.value == before
    assert [bus["name"] for bus in notebook_client.buses()] == ["dash"], "nothing was opened"


@pytest.mark.asyncio
async def test_trusted_markup_is_shared() -> None:
    one, other = (ebus.share(widgets.HTML(), "news", trust_markup=True) for _ in range(2))
    one.value = "<b>welcome</b>"
    await until(lambda: other.value == "<b>welcome</b>")


@pytest.mark.asyncio
async def test_markup_of_who_trusts_it_does_not_reach_who_does_not(caplog: pytest.LogCaptureFixture) -> None:
    def box() -> widgets.VBox:
        return widgets.VBox([widgets.HTML("mine"), widgets.IntText()])

    with caplog.at_level(logging.WARNING, "ebus_jupyter"):
        careful = ebus.share(box(), "box")
    assert "children/0/value of the shared VBox: not shared, because it is markup" in caplog.text
    trusting = ebus.share(box(), "box", trust_markup=True)
    trusting.children[0].value, trusting.children[1].value = ATTACK, 7
    await until(lambda: careful.children[1].value == 7)
    await settled(careful, trusting)
    assert careful.children[0].value == "mine"
    assert share_of(careful).traits == ["children/1/value"]
    handle = share_of(careful).pages._handle
    assert handle is not None
    assert list(handle._targets) == [careful.children[1].model_id], "its page does not take it either"


@pytest.mark.asyncio
async def test_markup_that_is_added_later_is_withheld_too() -> None:
    box = ebus.share(widgets.VBox([widgets.IntText()]), "box")
    box.children = [widgets.IntText(), widgets.HTML("mine")]
    share_of(box).state.bus.write(ATTACK, key="children/1/value").result(5)
    await settled(box)
    assert box.children[1].value == "mine"


@pytest.mark.asyncio
async def test_image_that_becomes_an_address_is_withheld_from_then_on() -> None:
    image = ebus.share(widgets.Image(value=b"png"), "picture")
    assert share_of(image).traits == ["value"]
    image.format = "url"
    assert share_of(image).traits == []
    share_of(image).state.bus.write(b"https://evil.example/seen.png", key="value").result(5)
    await settled(image)
    assert image.value == b"png"


@pytest.mark.parametrize(
    "make",
    [widgets.IntSlider, widgets.Text, widgets.Button, widgets.Dropdown, lambda: widgets.Accordion([widgets.Text()])],
)
@pytest.mark.parametrize("trait", ["description", "description_allow_html"])
@pytest.mark.asyncio
async def test_description_and_its_switch_to_html_are_markup(make: Callable[[], Any], trait: str) -> None:
    widget = make()
    if trait in widget.keys:
        with pytest.raises(ValueError, match="is markup"):
            ebus.share(widget, "it", traits=["value", trait] if "value" in widget.keys else [trait])


@pytest.mark.asyncio
async def test_author_and_name_of_a_trait_say_that_it_is_markup() -> None:
    card = ebus.share(Card(), "card")
    assert share_of(card).traits == ["title"]
    assert set(share_of(ebus.share(Card(), "trusted", trust_markup=True)).traits) == {"html", "body", "title"}


@pytest.mark.parametrize("trait", ["_esm", "_css"])
@pytest.mark.asyncio
async def test_code_of_a_widget_is_not_shared_even_if_it_is_named(trait: str) -> None:
    class Styled(anywidget.AnyWidget):
        _esm = "export default {}"
        _css = ".x {}"

    with pytest.raises(ValueError, match="is markup"):
        ebus.share(Styled(), "code", traits=[trait])


@pytest.mark.asyncio
async def test_adapter_may_say_that_it_is_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes:
        markup = True

    monkeypatch.setattr(adapters, "of", lambda widget: {"notes": Notes()})
    assert "notes" in markup.of(widgets.IntSlider())


@pytest.mark.asyncio
async def test_map_shares_no_text_that_leaflet_takes_as_html() -> None:
    leaflet = pytest.importorskip("ipyleaflet")
    layers = [leaflet.TileLayer(), leaflet.Marker(location=(1, 2)), leaflet.GeoJSON(data={})]
    shared = share_of(ebus.share(leaflet.Map(layers=layers), "map")).traits
    assert "layers/1/location" in shared
    ends = ("name", "attribution", "url", "title", "html", "text", "legend")
    assert not [key for key in shared if key.endswith(ends)]


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("../../x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\x.txt", "x.txt"),
        ("C:x", "x"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        (".bashrc", "bashrc"),
        ("a\x00b", "b"),
        ("a\x1bb", "a\\x1bb"),
        ("photo 1.jpg", "photo 1.jpg"),
        (7, "7"),
    ],
)
def test_name_of_an_uploaded_file_has_no_folders(sent: Any, taken: str) -> None:
    assert markup.file_name(sent) == taken


@pytest.mark.asyncio
async def test_shared_upload_brings_clean_names_however_it_arrives() -> None:
    upload = ebus.share(widgets.FileUpload(), "files")
    page = FakePage(upload)
    file = {"name": "../../x", "type": "text/plain", "size": 1, "content": b"x", "last_modified": 0}
    page.write_to_bus("value", [file])
    await until(lambda: upload.value)
    assert [each["name"] for each in upload.value] == ["x"]
    late = ebus.share(widgets.FileUpload(), "files")
    assert [each["name"] for each in late.value] == ["x"]
    await settled(upload, late)
    assert share_of(upload).state["value"][0]["name"] == "../../x", "nobody corrects another's value"


# --- whose bus it is --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_share_takes_access_lists(line: Line) -> None:
    slider = ebus.share(widgets.IntSlider(), "speed", readers=["alice", "bob"], writers=["alice"])
    spec = share_of(slider).state.bus.spec
    assert (spec.readers, spec.writers) == (("alice", "bob"), ("alice",))
    bob = line.client("bob", "k2").state("speed", readers=["alice", "bob"])
    assert bob["value"] == 0
    with pytest.raises(ebus.NoSuchBus):
        line.client("mallory", "k3").state("speed")


@pytest.mark.parametrize("given", [{"filter": lambda value, sender: value}, {"retain": "log"}, {"type": int}])
@pytest.mark.asyncio
async def test_share_refuses_a_bus_that_somebody_has_prepared(line: Line, given: dict[str, Any]) -> None:
    given = {"type": Any, "retain": "keys", **given}
    line.client("mallory", "k9").bus("speed", **given)
    with pytest.raises(ebus.SpecConflict):
        ebus.share(widgets.IntSlider(), "speed")
