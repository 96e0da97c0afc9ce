"""How a widget, its pages and the shared state come to agree."""

from __future__ import annotations

import logging
from typing import Any

import anywidget
import ipywidgets as widgets
import pytest
import traitlets

import ebus_jupyter as ebus
from tests.client.conftest import Line

from .notebook import FakePage, settled, share_of, share_twice, until


@pytest.mark.asyncio
async def test_comm_of_a_live_page_is_muted_in_both_directions() -> None:
    slider, other = share_twice(lambda: widgets.IntSlider(max=1000))
    page = FakePage(slider)
    slider.value = 1
    assert page.comm_updates == [{"value": 1}], "before the page is live, the comm works as usual"
    page.go_live()
    slider.value = 2
    slider.description = "not shared"
    await until(lambda: other.value == 2)
    assert page.comm_updates == [{"value": 1}, {"description": "not shared"}]

    page.write_to_bus("value", 60)
    page.send_by_comm(value=55, disabled=True)  # arrives late
    await until(lambda: slider.value == other.value == 60)
    assert slider.disabled

    page.lose_bus()
    page.send_by_comm(value=70)
    await until(lambda: slider.value == other.value == 70)


@pytest.mark.asyncio
async def test_full_state_request_includes_bound_traits() -> None:
    slider = ebus.share(widgets.IntSlider(3), "it")
    page = FakePage(slider)
    page.go_live()
    slider._handle_msg({"content": {"data": {"method": "request_state"}}})
    assert page.comm_updates[0]["value"] == 3


@pytest.mark.asyncio
async def test_late_comm_value_does_not_undo_a_newer_bus_value() -> None:
    slider, other = share_twice(widgets.IntSlider)
    page = FakePage(slider)
    page.write_to_bus("value", 50)  # the page is live, but the busy kernel receives the older messages first
    page.send_by_comm(value=20)
    page.go_live()
    await settled(slider, other)
    assert slider.value == other.value == 50


@pytest.mark.asyncio
async def test_validator_corrects_a_value_of_its_own_page() -> None:
    class Even(anywidget.AnyWidget):
        _esm = "export default {}"
        value = traitlets.Int(0).tag(sync=True)

        @traitlets.validate("value")
        def _even(self, proposal: Any) -> int:
            return int(proposal["value"]) // 2 * 2

    for order in ("comm first", "bus first"):
        one, other = share_twice(Even, order.replace(" ", "-"))
        page = FakePage(one)
        page.go_live()
        if order == "comm first":
            page.send_by_comm(value=7)
        page.write_to_bus("value", 7)
        await settled(one)
        if order == "bus first":
            page.send_by_comm(value=7)
        await until(lambda: share_of(one).state["value"] == 6)  # noqa: B023
        await settled(one, other)
        assert one.value == other.value == 6


@pytest.mark.asyncio
async def test_widgets_with_different_ranges_settle(caplog: pytest.LogCaptureFixture) -> None:
    wide = ebus.share(widgets.IntSlider(max=1000), "speed")
    low, high = ebus.share(widgets.IntSlider(max=50), "speed"), ebus.share(widgets.IntSlider(min=60, value=60), "speed")
    page = FakePage(low)
    page.go_live()
    with caplog.at_level(logging.WARNING):
        for value in range(500, 520):
            wide.value = value
        await settled(wide, low, high)
    assert [wide.value, low.value, high.value] == [519, 50, 100]
    assert share_of(wide).state["value"] == 519
    assert len([r for r in caplog.records if "does not fit" in r.message]) == 2, "each of the two widgets logs it once"
    assert page.fits[-1] == {"ebus": "fit", "target": low.model_id, "trait": "value", "of": 519, "value": 50}
    wide.value = 30
    await until(lambda: low.value == 30)


@pytest.mark.asyncio
async def test_missing_option_is_logged_and_later_values_apply(caplog: pytest.LogCaptureFixture) -> None:
    many = ebus.share(widgets.Dropdown(options="abcdef"), "letter")
    few = ebus.share(widgets.Dropdown(options="ab", value="b"), "letter")
    many.value = "f"
    await until(lambda: "does not fit" in caplog.text)
    assert few.value == "a"
    many.value = "b"
    await until(lambda: few.value == "b")


@pytest.mark.asyncio
async def test_observers_that_set_the_value_settle() -> None:
    def rounded() -> Any:
        slider = widgets.FloatSlider(max=100)
        slider.observe(lambda change: setattr(slider, "value", round(change["new"], 1)), "value")
        return slider

    one, other = share_twice(rounded)
    one.value = 12.3456
    await until(lambda: other.value == 12.3)
    await settled(one, other)
    assert one.value == other.value == share_of(one).state["value"] == 12.3


@pytest.mark.asyncio
async def test_read_only_share_follows_and_reverts_local_changes(caplog: pytest.LogCaptureFixture) -> None:
    early = ebus.share(widgets.IntSlider(5), "it", read_only=True)
    assert early.value == 5
    assert len(share_of(early).state) == 0, "a read-only share does not set the first value"
    one = ebus.share(widgets.IntSlider(1), "it")
    await until(lambda: early.value == 1)
    page = FakePage(early)
    page.send_by_comm(value=44)
    assert page.comm_updates == [{"value": 1}]
    page.go_live()
    page.send_by_comm(value=45)
    early.value = 46
    assert early.value == 1
    assert "read_only" in caplog.text
    await settled(one, early)
    assert share_of(one).state["value"] == one.value == 1


@pytest.mark.asyncio
async def test_concurrent_writes_converge() -> None:
    sliders = [ebus.share(widgets.IntSlider(max=1000), "conflict") for _ in range(5)]
    for n in range(30):
        for who, slider in enumerate(sliders):
            slider.value = n * 10 + who
    await settled(*sliders)
    assert len({slider.value for slider in sliders}) == 1
    assert sliders[0].value == share_of(sliders[0]).state["value"]


@pytest.mark.asyncio
async def test_busy_kernel_skips_to_the_newest_value(line: Line) -> None:
    slider = ebus.share(widgets.IntSlider(max=1000), "busy")
    heard: list[int] = []
    slider.observe(lambda change: heard.append(change["new"]), "value")
    theirs = line.client("bob", "k2").state("busy")
    for value in range(1, 200):  # this kernel's loop does not run meanwhile, as during a long cell
        theirs["value"] = value
    theirs.flush()
    await until(lambda: slider.value == 199)
    assert len(heard) <= 3, "intermediate values are skipped"


@pytest.mark.asyncio
async def test_value_set_while_disconnected_is_sent_on_reconnect(line: Line) -> None:
    slider = ebus.share(widgets.IntSlider(max=1000), "line")
    theirs = line.client("bob", "k2").state("line")
    line.cut()
    slider.value = 77
    line.mend()
    await until(lambda: theirs.get("value") == 77)


@pytest.mark.asyncio
async def test_unserializable_value_is_logged_and_stays_local(caplog: pytest.LogCaptureFixture) -> None:
    class Loose(anywidget.AnyWidget):
        _esm = "export default {}"
        anything = traitlets.Any(None, allow_none=True).tag(sync=True)

    one, other = share_twice(Loose)
    one.anything = 2**70
    assert "is not shared" in caplog.text
    one.anything = "fine"
    await until(lambda: other.anything == "fine")
