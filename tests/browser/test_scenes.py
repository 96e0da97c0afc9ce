"""Buses between real kernels and real pages."""

from __future__ import annotations

from typing import Any

import ebus_jupyter as ebus

from .lab import Lab, Person, write_notebook


class Desk:
    """A page that has the client in the variable ``client``, beside the notebook that it shows."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.run(
            'import(base + "ebus/client.js").then((ebus) => { window.ebus = ebus; window.client = ebus.connect(); })'
        )

    def run(self, body: str, **given: Any) -> Any:
        """The value of a JavaScript expression. ``given`` are its variables; ``base`` is the server's base URL."""
        given["base"] = self.person.server.base_url
        names = ", ".join(given)
        return self.person.page.evaluate(f"async ({{{names}}}) => ({body})", given)


def desk(lab: Lab, user: str) -> Desk:
    return Desk(lab.person(user).open(write_notebook(lab.server, f"desk-{user}.ipynb", "1")))


# Collects in `seen` the values read, and the numbers of messages missed.
READ = """(() => {
  window.seen = [];
  const stream = client.bus(name).stream({ since });
  (async () => { for (;;) { try { const { value } = await stream.next(); seen.push(value); }
                            catch (error) { seen.push(`missed ${error.skipped}`); } } })();
  return stream.begun().then(() => null);
})()"""


def test_slow_reader_is_told_what_it_missed(lab: Lab) -> None:
    alice, bob = desk(lab, "alice"), desk(lab, "bob")
    alice.person.eval(
        "board.size",
        before="import ebus_jupyter as ebus; board = ebus.bus('board', int, size=10).spec; slow = ebus.bus('board').stream()",
    )
    bob.run("(() => { window.slow = client.bus('board').stream(); window.quick = client.bus('board').stream(); })()")
    bob.run("client.bus('board').ready")
    bob.run("client.bus('board').write(0)")
    bob.run("(async () => { window.quick_saw = []; for await (const n of quick) quick_saw.push(n); })() && null")
    alice.person.eval("1", before="for n in range(1, 25): ebus.bus('board').write(n).result(30)")
    bob.person.page.wait_for_function("quick_saw.at(-1) === 24")

    # Neither the page nor the kernel has read its slow stream yet. The stream that kept up has missed nothing.
    assert bob.run("quick_saw") == list(range(25))
    told = bob.run(
        "await slow.next().catch((lag) => ({ code: lag.code, skipped: lag.skipped, then: lag.resumeAfter }))"
    )
    assert told == {"code": "lagged", "skipped": 15, "then": 15}
    rest = "await (async () => { const out = []; while (out.length < 10) out.push((await slow.next()).value); return out; })()"
    assert bob.run(rest) == list(range(15, 25))
    lagged = "try: slow.get(30)\nexcept ebus.Lagged as lag: told = (lag.skipped, lag.resume_after)"
    assert alice.person.eval("told, slow.take(10, 30)", before=lagged) == f"((15, 15), {list(range(15, 25))})"


def test_six_streams_read_independently_from_one_offset(lab: Lab) -> None:
    alice, bob = desk(lab, "alice"), desk(lab, "bob")
    kernel = alice.person
    kernel.eval(
        "1",
        before=(
            "import ebus_jupyter as ebus\nbus = ebus.bus('six', int)\n"
            "for n in range(5): bus.write(n)\nbus.write(5).result(30)\n"
            "ears = [bus.stream(since='start')]\near_before = ears[0].take(2, 30)\nears += [ears[0].clone() for _ in range(2)]"
        ),
    )
    bob.run("(() => { window.ears = [0, 1, 2].map(() => client.bus('six').stream({ since: 2 })); })()")
    kernel.eval("1", before="bus.write(6).result(30)")
    assert kernel.eval("[ear.take(5, 30) for ear in ears]") == str([[2, 3, 4, 5, 6]] * 3)
    heard = bob.run(
        "await Promise.all(ears.map(async (ear) => {"
        " const out = []; for (let n = 0; n < 5; n++) out.push((await ear.next()).value); return out; }))"
    )
    assert heard == [[2, 3, 4, 5, 6]] * 3


def test_notification_reaches_everyone_but_its_writer(lab: Lab) -> None:
    alice, bob = desk(lab, "alice"), desk(lab, "bob")
    for person in (alice, bob):
        person.run(READ, name="notify", since=None)
    bob.person.eval("1", before="import ebus_jupyter as ebus; ear = ebus.bus('notify').stream()")
    alice.run("client.bus('notify').write('alice has joined', { echo: false })")
    alice.run("client.bus('notify').write('hello')")
    bob.person.page.wait_for_function("seen.length === 2")
    alice.person.page.wait_for_function("seen.length === 1")
    assert alice.run("seen") == ["hello"]
    assert bob.run("seen") == ["alice has joined", "hello"]
    assert bob.person.eval("ear.take(2, 30)") == "['alice has joined', 'hello']"


def test_server_killed_during_a_thousand_writes_loses_none(lab: Lab) -> None:
    server = lab.server
    client = ebus.connect(server.url, server.token("bob"))
    bus = client.bus("log", int, size=5000)
    ear = bus.stream()
    page = desk(lab, "alice")
    page.run(READ, name="log", since="start")
    epoch = bus.channel.epoch

    acks = [bus.write(n) for n in range(300)]
    acks[100].result(30)
    server.kill9()
    acks += [bus.write(n) for n in range(300, 1000)]
    server.start()

    offsets = [ack.result(60) for ack in acks]
    assert offsets == sorted(set(offsets)), "offsets increase in the order of the writes"
    assert bus.channel.epoch == epoch
    assert ear.take(1000, 30) == list(range(1000)), "the writer received each message once"
    page.person.page.wait_for_function("seen.length >= 1000")
    assert page.run("seen") == list(range(1000)), "and so did the page"
    assert ebus.connect(server.url, server.token("alice")).bus("log").history(1000) == list(range(1000))
    client.close()
