"""A game: each player sends moves on a private bus; a referee in the server judges them and publishes the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.server.harness import Server

from .lab import Lab, write_notebook

REFEREE = '''
"""Who takes the last of ten sticks loses; a player takes one to three, when it is their turn."""

import asyncio


async def referee(ebus):
    lobby = ebus.bus("lobby", str)
    truth = ebus.bus("sticks", dict, writers=[])     # only the server writes it
    players, sticks, listening = [], 10, set()

    async def listen(uplink):
        nonlocal sticks
        async for move in uplink.messages(since="start"):
            who = move.sender.user                   # stamped by the broker, so nobody plays for another
            legal = who == players[0] and move.value in (1, 2, 3) and move.value <= sticks
            if legal:
                sticks -= move.value
                players.append(players.pop(0))
            await truth.write({"by": who, "took": move.value, "legal": legal, "left": sticks})

    async for hello in lobby.messages():
        players.append(hello.sender.user)
        task = asyncio.create_task(listen(ebus.bus(hello.value)))
        listening.add(task)
        await truth.write({"joined": hello.sender.user})
'''

PLAY = """
import ebus_jupyter as ebus
me = ebus.bus(type=int)                              # unnamed: only those who are given its address can open it
truth = ebus.bus("sticks").stream()
ebus.bus("lobby", str).write(me.uri).result(30)
truth.get(30)
"""

PAGE = """
import anywidget

class Board(anywidget.AnyWidget):
    _esm = '''
    export default { async render({ model, el, host, signal }) {
      const { exports: me } = await host.getWidget(model.get("me"));
      const { exports: sticks } = await host.getWidget(model.get("sticks"));
      const truth = await sticks.stream({ signal }).begun();
      const take = Object.assign(document.createElement("button"), { className: "take", textContent: "take two" });
      const said = Object.assign(document.createElement("p"), { className: "said" });
      el.append(take, said);
      take.onclick = () => me.write(2);
      (async () => {
        for await (const { by, took, legal, left } of truth)
          if (by) said.textContent = `${by} took ${took}: ${legal ? left + " left" : "illegal"}`;
      })();
    } }'''
    me = anywidget.WidgetTrait().tag(sync=True)
    sticks = anywidget.WidgetTrait().tag(sync=True)

Board(me=me, sticks=ebus.bus("sticks"))
"""


@pytest.fixture
def game(tmp_path: Path, make_server: Callable[..., Server], browser: Browser) -> Iterator[Lab]:
    (tmp_path / "sticks_referee.py").write_text(REFEREE)
    config = "c.EBus.participants = {'referee': 'sticks_referee:referee'}\n"
    lab = Lab(make_server("alice", "bob", config=config, env={"PYTHONPATH": str(tmp_path)}), browser)
    yield lab
    lab.close()


def test_referee_judges_moves_and_publishes_the_state(game: Lab) -> None:
    alice = game.person("alice").open(write_notebook(game.server, "alice.ipynb", PLAY, PAGE))
    alice.run_all()
    bob = game.person("bob").open(write_notebook(game.server, "bob.ipynb", PLAY, PAGE))
    bob.run_all()
    for person in (alice, bob):
        person.page.locator(".take").wait_for()

    alice.page.locator(".take").click()
    for person in (alice, bob):
        expect(person.page.locator(".said")).to_have_text("alice took 2: 8 left")

    alice.page.locator(".take").click()
    expect(bob.page.locator(".said")).to_have_text("alice took 2: illegal")

    bob.eval("me.write(3).result(30)")
    expect(alice.page.locator(".said")).to_have_text("bob took 3: 5 left")

    # Bob can neither write the state, nor play for Alice: he does not have the address of her bus.
    forbidden = (
        "try: ebus.bus('sticks').write({'by': 'bob', 'left': 0}).result()\nexcept ebus.Forbidden as no: said = str(no)"
    )
    assert "read sticks but not write to it" in bob.eval("said", before=forbidden) or "may read" in bob.eval("said")
    hers = alice.eval("me.uri").strip("'").partition("#")[0]
    unseen = f"try: ebus.bus({hers!r})\nexcept ebus.NoSuchBus as no: said = 'unseen'"
    assert bob.eval("said", before=unseen) == "'unseen'"
