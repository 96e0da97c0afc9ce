"""Binding and unbinding: containers, links, and the lifetime of a share."""

from __future__ import annotations

import asyncio
import gc
import threading
from weakref import ref

import ipywidgets as widgets
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client
from ebus_jupyter.widgets.sharing.bound_trait import bound_traits

from .notebook import panel, settled, share_of, share_twice, until


@pytest.mark.asyncio
async def test_added_child_is_bound_and_removed_child_released() -> None:
    one, other = share_twice(lambda: widgets.HBox([widgets.IntText()]))
    gone = one.children[0]
    for box in (one, other):
        box.children = [widgets.Text(), widgets.IntSlider()]
    one.children[1].value = 8
    await until(lambda: other.children[1].value == 8)
    gone.value = 3
    await settled(one, other)
    assert other.children[0].value == ""
    assert "set_state" not in vars(gone), "the widget has its own methods again"


@pytest.mark.asyncio
async def test_children_added_in_two_notebooks_take_the_first_value() -> None:
    one, other = share_twice(widgets.HBox)
    one.children = [widgets.IntText(3)]
    other.children = [widgets.IntText(4)]
    await until(lambda: one.children[0].value == other.children[0].value)
    assert one.children[0].value == 3


@pytest.mark.asyncio
async def test_unshare_restores_the_widget() -> None:
    one, other = share_twice(panel)
    child = one.children[0]
    assert ebus.unshare(child) is child
    child.value = 3
    one.children[1].children[0].value = "still"
    await until(lambda: other.children[1].children[0].value == "still")
    assert other.children[0].value == 0
    assert ebus.unshare(ebus.unshare(one)) is one
    one.selected_index = 1
    await settled(other)
    assert other.selected_index == 0
    assert not {"set_state", "send_state"} & set(vars(one)) and not bound_traits(one)


@pytest.mark.asyncio
async def test_second_share_replaces_the_first_name() -> None:
    one, other = share_twice(widgets.IntText, "first")
    ebus.share(one, "second")
    one.value = 3
    new = ebus.share(widgets.IntText(), "second")
    assert new.value == 3
    await settled(one)
    assert other.value == 0


@pytest.mark.asyncio
async def test_container_leaves_out_a_child_shared_by_itself() -> None:
    slider = widgets.IntSlider()
    box = ebus.share(widgets.VBox([slider, widgets.Text()]), "box")
    ebus.share(slider, "slider")
    assert share_of(box).traits == ["children/1/value"]
    slider.value = 4
    assert ebus.share(widgets.IntSlider(), "slider").value == 4


@pytest.mark.asyncio
async def test_running_a_cell_again_leaks_no_threads_or_widgets() -> None:
    first = ebus.share(widgets.IntSlider(), "again")
    threads, alive = threading.active_count(), len(widgets.widget._instances)
    holders = share_of(first).state.bus.topic.holders
    for _ in range(20):
        slider = ebus.share(widgets.IntSlider(), "again")
        slider.layout.close()
        slider.style.close()
        slider.close()
    assert threading.active_count() == threads
    assert len(widgets.widget._instances) == alive
    assert share_of(first).state.bus.topic.holders == holders


@pytest.mark.asyncio
async def test_share_closes_when_its_widget_is_collected() -> None:
    slider = ebus.share(widgets.IntSlider(), "gone")
    state = share_of(slider).state
    widgets.widget._instances.pop(slider.model_id)
    gone, slider.comm._msg_callback = ref(slider), None
    slider.comm.on_msg(None)
    del slider
    # Another thread may be collecting at this moment; then `gc.collect` does nothing.
    await until(lambda: gc.collect() >= 0 and gone() is None)
    await until(lambda: state.bus.status == "closed")


@pytest.mark.asyncio
async def test_link_binds_one_trait_to_one_entry(notebook_client: Client) -> None:
    dash = notebook_client.state("dash")
    dash["speed"] = 30
    slider = widgets.IntSlider()
    assert ebus.link((slider, "value"), dash, "speed") is slider
    ebus.link((slider, "max"), dash, "limit")
    assert slider.value == 30
    assert dash["limit"] == 100
    slider.value = 40
    await until(lambda: dash["speed"] == 40)
    dash["limit"] = 60
    await until(lambda: slider.max == 60)
    ebus.unshare(slider)
    slider.value = 50
    dash["speed"] = 20
    await asyncio.to_thread(dash.flush)
    assert (slider.value, dash["speed"]) == (50, 20)
    with pytest.raises(ValueError, match="no trait 'speed'"):
        ebus.link((slider, "speed"), dash, "speed")
    with pytest.raises(ValueError, match="holds other widgets"):
        ebus.link((widgets.VBox(), "children"), dash, "speed")
