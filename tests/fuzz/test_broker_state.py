"""Several connections send the broker whatever frames they like: it answers, stays within its bounds, and serves the others."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from tests.core.play import Play, Raw

from .cost import measured, pays
from .inputs import ENCODED, MESSAGES, damaged

SMALL = Limits(
    value_bytes=2_000, batch_bytes=40_000, schema_bytes=2_000, size=20, log_bytes=10_000, kept_buses=20, buses=10,
    buses_per_participant=5, connections=8, recipients=5, publish_rate=50.0, pending=10, dedupe=50, send_bytes=4_000,
    control_bytes=8_000, page_bytes=2_000, presence_bytes=100,
)  # fmt: skip
"""Bounds so low that a few frames reach them."""

KEPT_BYTES = 4 << 20
"""What a broker with these bounds may hold, whatever was sent to it: 10 buses of 10 kB, their spans and schemas, and the
validators' own parts, many times over."""

ACTS = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 3), MESSAGES),
    st.tuples(st.just("say"), st.integers(0, 3), MESSAGES),
    st.tuples(st.just("say"), st.integers(0, 3), damaged(MESSAGES)),
    st.tuples(st.just("say"), st.integers(0, 3), damaged(ENCODED)),
    st.tuples(st.just("lose"), st.integers(0, 3), st.just(b"")),
    st.tuples(st.just("pause"), st.integers(0, 3), st.just(b"")),
    st.tuples(st.just("resume"), st.integers(0, 3), st.just(b"")),
    st.tuples(st.just("wait"), st.integers(1, 30), st.just(b"")),
)


class Crowd:
    """Four who send what they like, and two who do as they should."""

    def __init__(self) -> None:
        self.play = Play(limits=SMALL)
        self.people: list[Raw] = []
        for n in range(4):
            self.people.append(self.newcomer(n))
        self.alice, self.bob = self.play.player("alice"), self.play.player("bob")
        self.bus = self.alice.opened("good", "server")
        self.bob.opened("good", "server")

    def newcomer(self, n: int) -> Raw:
        kind: Any = ["client", "kernel", "page", "client"][n]
        return Raw(
            self.play, ["mallory", "mallory", "trudy", "alice"][n], kind, "k1" if kind == "kernel" else ""
        ).hello()

    def act(self, what: str, who: int, data: bytes) -> None:
        if what == "wait":
            self.play.pass_time(float(who))
            return
        raw = self.people[who]
        if raw.hung_up or what == "lose":
            raw.player.lose()
            self.people[who] = self.newcomer(who)
        elif what == "say":
            # A frame pays for a page, and an opener for its schema, whatever their size.
            frames_ = min(12, len(data))
            answers = pays(len(data) + 12 * frames_ * 1024, lambda: raw.shout(data), steps=32, bytes_=512, base=16)
            said = sum(len(frames.encode(frame)) for frame in answers)
            assert said <= (1 + frames_) * 4 * (SMALL.page_bytes + SMALL.send_bytes) + 16 * len(data), (
                "too much was said"
            )
        elif what == "pause":
            raw.player.block()
        else:
            raw.player.drain()


@given(st.lists(ACTS, max_size=25))
@settings(max_examples=settings.default.max_examples)
def test_crowd(acts: list[tuple[str, int, bytes]]) -> None:
    with measured() as cost:
        crowd = Crowd()
        for act in acts:
            crowd.act(*act)
        crowd.play.settle()
        assert crowd.alice.written(crowd.bus, "tea") >= 1, "somebody who does as he should is not served"
    assert cost.kept_bytes < KEPT_BYTES
