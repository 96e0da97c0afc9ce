"""A world of simulated time in which clients run: their threads, their event loop, their lines, and a broker.

The threads are real, but one runs at a time. Where one waits (for a lock, a message, a time-out) the world chooses, by its
seed, which thread or which message in flight moves on. When nothing can move, time passes to the next deadline; when there
is none either, the wait would never end, and `Deadlock` is raised in the program's thread. So every run of a seed is the
same, hours take milliseconds, and a call that hangs fails at once.

The clients are the real ones, with the real drivers. What is simulated is what they ask of Python and of the network:
clocks, locks, threads, the selector, the socket. The broker is the core's own (`tests.core.play`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from ebus_jupyter.client import background, connection, driver, guard, kernel_filter, state, unseen, waiting, writes
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.driver import LoopDriver, SocketDriver
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import ConnectionLost
from tests.core.play import Play

LATENCY = 0.01
"""Simulated seconds that it takes to connect, or to find out that nobody answers."""


TICK = 0.5
"""The longest simulated time between two looks of the broker at its clock."""


class Deadlock(AssertionError):
    """A wait would never end."""


class SimThread:
    """A thread of the world; it runs while it has the baton."""

    def __init__(self, world: World, target: Callable[[], None], name: str) -> None:
        self.world = world
        self.name = name
        self.alive = False
        self.error: BaseException | None = None  # what ended it
        self.why = ""
        self.ready: Callable[[], bool] = lambda: True
        self.deadline: float | None = None
        self.locks = 0
        self.baton = threading.Lock()
        self.baton.acquire()
        self._target = target

    def start(self) -> None:
        self.alive = True
        self.world.threads.append(self)
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def join(self, timeout: float | None = None) -> None:
        self.world.block(lambda: not self.alive, timeout)

    def is_alive(self) -> bool:
        return self.alive

    def _run(self) -> None:
        self.baton.acquire()
        try:
            self._target()
        except BaseException as error:
            self.error = error
            self.why = traceback.format_exc()
            self.world.crashed.append(self)
        self.alive = False
        if not self.world.abandoned:
            self.world.threads.remove(self)
            self.world.hand_over()


class World:
    """Everything that happens in one run.

    Args:
        seed: Decides all that chance decides in the world.
        limits: The broker's bounds.
    """

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.play = Play(limits=limits)
        self.up = True
        self.lines: list[SimLine | SimTransport] = []
        self.soon: deque[tuple[float, Callable[[], None]]] = deque()  # calls that something else makes meanwhile
        self.main = SimThread(self, lambda: None, "program")
        self.main.alive = True
        self.threads = [self.main]
        self.current = self.main
        self.deadlock: str = ""
        self.crashed: list[SimThread] = []  # threads that an exception has ended
        self._minted = 0
        self.moves = 0  # how often something moved on
        self._finished = False
        self.abandoned = False
        self.jobs: deque[tuple[float, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._background = SimThread(self, self._work, "background")
        self.loop = SimLoop(self)
        self.loop_thread = SimThread(self, self.loop.run, "loop")

    def start(self) -> None:
        self._background.start()
        self.loop_thread.start()

    def mint(self, n: int = 16) -> str:
        self._minted += 1
        return f"{self._minted:0{2 * n}x}"

    def monotonic(self) -> float:
        return self.now

    # --- threads ----------------------------------------------------------------------------------------------------

    def block(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Suspend the calling thread until ``ready()``, or for ``timeout`` seconds; returns whether it is ready."""
        me = self.current
        assert not me.locks, f"{me.name} waits while it holds a connection's lock"
        me.ready, me.deadline = ready, None if timeout is None else self.now + max(0.0, timeout)
        chosen = self._choose()
        if chosen is not me:
            self.current = chosen
            chosen.baton.release()
            me.baton.acquire()
        while self.abandoned and me is not self.main:
            me.baton.acquire()  # for ever: the client would survive an exception
        if me is self.main and self.deadlock:
            text, self.deadlock = self.deadlock, ""
            raise Deadlock(text)
        return ready()

    def hand_over(self) -> None:
        """The calling thread ends: another one goes on."""
        self.current = self._choose()
        self.current.baton.release()

    def _choose(self) -> SimThread:
        while True:
            self.moves += 1
            able = [t for t in self.threads if t.ready() or (t.deadline is not None and t.deadline <= self.now)]
            moving = [line for line in self.lines if line.can_carry()]
            due = bool(self.soon) and self.soon[0][0] <= self.now
            n = self.random.randrange(len(able) + len(moving) + due) if able or moving or due else -1
            if 0 <= n < len(able):
                return able[n]
            if 0 <= n < len(able) + len(moving):
                moving[n - len(able)].carry()
            elif n >= 0:
                self._call_soon()
            elif not self._pass_time():
                waiting = ", ".join(t.name for t in self.threads if t is not self.main)
                self.deadlock = f"the program waits, and nothing is going to happen any more (threads: {waiting})"
                return self.main

    def _call_soon(self) -> None:
        # On a thread of its own: it is what another thread of the program does.
        _, call = self.soon.popleft()
        SimThread(self, call, "another").start()

    def _pass_time(self) -> bool:
        times = [t.deadline for t in self.threads if t.deadline is not None and not t.ready()]
        times += [at for at, _ in self.soon]
        if not times:
            return False
        self.now = max(self.now, min(*times, self.now + TICK))
        self.play.now = self.now
        self.play.do(self.play.broker.tick(self.now))
        self.play.do(self.play.broker.presence(self.play.now))
        return True

    def run(self, seconds: float) -> None:
        """Let everything else go on for that long."""
        self.block(lambda: False, seconds)

    def step(self, moves: int) -> None:
        """Let other things move on so many times, or until none can before time passes."""
        until = self.moves + moves
        self.block(lambda: self.moves >= until, 0.02)

    # --- what clients ask of Python ---------------------------------------------------------------------------------

    def later(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        self.jobs.append((self.now + seconds, function, args))

    def _work(self) -> None:
        while not self._finished:
            known = [*self.jobs]  # a finaliser may add one at any time
            until = min((at for at, _, _ in known), default=None)
            self.block(partial(self._has_job, len(known)), None if until is None else until - self.now)
            for job in [job for job in [*self.jobs] if job[0] <= self.now]:
                self.jobs.remove(job)
                background._call((0.0, 0, job[1], job[2]))

    def _has_job(self, known: int) -> bool:
        return self._finished or len(self.jobs) != known

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Clients that are used within have their time, threads and locks from this world."""
        clock = SimpleNamespace(monotonic=self.monotonic)
        with pytest.MonkeyPatch.context() as patch:
            for module in (connection, driver, waiting, state, unseen, writes):
                patch.setattr(module, "time", clock)
            patch.setattr(waiting, "allocate_lock", lambda: SimLock(self))
            patch.setattr(connection, "threading", SimpleNamespace(RLock=lambda: SimRLock(self)))
            patch.setattr(connection, "secrets", SimpleNamespace(token_hex=self.mint))
            patch.setattr(driver, "random", self.random)
            patch.setattr(
                driver,
                "threading",
                SimpleNamespace(
                    Thread=lambda target, name, daemon: SimThread(self, target, name),
                    Event=lambda: SimEvent(self),
                    current_thread=lambda: self.current,
                    get_ident=threading.get_ident,
                ),
            )
            patch.setattr(background, "start", lambda: None)
            patch.setattr(background, "later", self.later)
            patch.setattr(kernel_filter.FilterRunner, "_start_thread", lambda runner: None)
            patch.setattr(kernel_filter.FilterRunner, "_on_thread", _at_once)
            # What is logged takes no turn: when a finaliser runs differs from run to run.
            at_once = SimpleNamespace(later=lambda _, function, *args: function(*args))
            for module in (guard, unseen):
                patch.setattr(module, "background", at_once)
            yield

    # --- clients and the network ------------------------------------------------------------------------------------

    def client(self, who: Participant, *, on_loop: bool = False) -> Client:
        """A client; one ``on_loop`` runs on the world's event loop, any other on a thread of its own."""
        if on_loop:

            async def connect() -> SimTransport:
                await asyncio.sleep(LATENCY)
                self._ensure_up()
                return SimTransport(self, who)

            made = LoopDriver(connect, self.loop, -1)
        else:
            made = SocketDriver(lambda: self._connect(who))  # type: ignore[assignment, arg-type, return-value]
        return Client(made, where="the simulated broker", loop=self.loop)

    def _connect(self, who: Participant) -> SimLine:
        self.block(lambda: False, LATENCY)
        self._ensure_up()
        return SimLine(self, who)

    def _ensure_up(self) -> None:
        if not self.up:
            raise ConnectionLost("nobody answers")

    def cut(self, line: SimLine | SimTransport, carried: int) -> None:
        """End a line after that many more of the messages in flight have arrived."""
        for _ in range(carried):
            if line.can_carry():
                line.carry()
        line.end()

    def restart(self, *, forget: bool) -> None:
        """Kill the broker, and start another one, on the same logs or on none."""
        for line in [*self.lines]:
            line.end()
        if forget:
            self.play.logs = type(self.play.logs)()
            self.play.lives.append([])
        self.play.restart()

    def finish(self) -> None:
        """End the world's own threads."""
        self._finished = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.block(lambda: not self.loop_thread.alive and not self._background.alive, 60)
        self.loop.close()

    def abandon(self) -> None:
        """A test has failed: end all threads, wherever they are."""
        self.abandoned = True
        for thread in self.threads:
            if thread is not self.main:
                thread.baton.release()


async def _at_once(_: Any, function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    return kernel_filter._outcome(function, *args)


# --- what Python gives them -----------------------------------------------------------------------------------------


class SimLock:
    """`_thread.lock`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken = False

    def acquire(self, timeout: float = -1) -> bool:
        if self._taken and not self._world.block(lambda: not self._taken, None if timeout < 0 else timeout):
            return False
        self._taken = True
        return True

    def release(self) -> None:
        self._taken = False


class SimRLock:
    """`threading.RLock`, which is never waited for: nobody waits while holding it, and one thread runs at a time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __enter__(self) -> None:
        self._world.current.locks += 1

    def __exit__(self, *_: object) -> None:
        self._world.current.locks -= 1

    def _is_owned(self) -> bool:
        return self._world.current.locks > 0


class SimEvent:
    """`threading.Event`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        return self._world.block(lambda: self._set, timeout)


class SimSelector(selectors.SelectSelector):
    """Wakes its loop when the loop is called from elsewhere, or when its time has come."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.woken = False

    def select(self, timeout: float | None = None) -> list[Any]:
        self._world.block(lambda: self.woken, timeout)
        self.woken = False
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop in the world's time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sim_selector = SimSelector(world)
        super().__init__(self._sim_selector)
        self.set_exception_handler(lambda _, context: None)

    def run(self) -> None:
        asyncio._set_running_loop(None)
        self.run_forever()

    def time(self) -> float:
        return self._world.now

    def _write_to_self(self) -> None:
        self._sim_selector.woken = True


# --- the network ----------------------------------------------------------------------------------------------------


class SimLine:
    """The line of a `SocketDriver`: as `transports.websocket.WebSocketLine`."""

    def __init__(self, world: World, who: Participant) -> None:
        self.world = world
        self.sent: deque[bytes] = deque()
        self.inbox: deque[tuple[bytes, int]] = deque()  # a `Play` puts what the broker sends here
        self.arrived: deque[bytes] = deque()
        self.ended = False
        self.hung_up = False
        self.writing_paused = False
        self.forced = 0
        self.garble: int | None = None  # the next message that arrives has lost what comes after this byte
        self.fail_send: BaseException | None = None
        self._woken = False
        self._closing = False
        play = world.play
        self.conn = play.new_connection()
        play.wires[self.conn] = self  # type: ignore[assignment]
        play.do(play.broker.connect(self.conn, who, play.now, may_write=True, authorize=False))
        world.lines.append(self)

    # --- the client's side ------------------------------------------------------------------------------------------

    backlog = 0

    def send(self, data: bytes) -> None:
        if self.ended or self._closing:
            raise ConnectionLost("the line has ended")
        # What is no `Exception` comes from a signal, which interrupts the program's main thread only.
        is_main = self.world.current is self.world.main
        if self.fail_send is not None and (is_main or isinstance(self.fail_send, Exception)):
            error, self.fail_send = self.fail_send, None
            raise error
        self.sent.append(data)

    def wake(self) -> None:
        self._woken = True

    def close(self) -> None:
        self._closing = True

    def fail(self) -> None:
        self.end()
        self.wake()

    def receive(self, timeout: float | None) -> list[bytes]:
        self.world.block(lambda: bool(self.arrived) or self.ended or self._woken, timeout)
        self._woken = False
        found = [*self.arrived]
        self.arrived.clear()
        if not found and self.ended:
            raise ConnectionLost("the line has ended")
        return found

    def abandon(self) -> None:
        self.end()

    # --- the network ------------------------------------------------------------------------------------------------

    def can_carry(self) -> bool:
        return bool(self.sent or self.inbox or self._closing or self.hung_up)

    def carry(self) -> None:
        """Bring one message to the other side."""
        up = self.sent and (not self.inbox or self.world.random.random() < 0.5)
        if up:
            play, data = self.world.play, self.sent.popleft()
            play.do(play.broker.receive(self.conn, data, play.now))
            play.take_turns()
            play.do(play.broker.presence(play.now))
        elif self.inbox:
            frame, number = self.inbox.popleft()
            data = frames.head(number) + frame
            if self.garble is not None:
                data, self.garble = data[: self.garble % len(data)] + b"\xc1", None
            self.deliver(data)
        else:
            self.end()

    def deliver(self, data: bytes) -> None:
        self.arrived.append(data)

    def end(self) -> None:
        """Lose everything that is in flight."""
        if not self.ended:
            self.ended = True
            self.world.lines.remove(self)
            self.world.play.wires.pop(self.conn, None)
            self.sent.clear()
            self.inbox.clear()
            if not self.hung_up:
                self.world.play.do(self.world.play.broker.disconnect(self.conn, self.world.now))


class SimTransport(SimLine):
    """The line of a `LoopDriver`: as `transports.base.Transport`."""

    def __init__(self, world: World, who: Participant) -> None:
        super().__init__(world, who)
        self._changed = asyncio.Event()

    async def send(self, data: bytes) -> None:  # type: ignore[override]
        super().send(data)
        await asyncio.sleep(0)

    async def __aiter__(self) -> Any:
        while not (self.ended and not self.arrived):
            while self.arrived:
                yield self.arrived.popleft()
            self._changed.clear()
            if not self.ended:
                await self._changed.wait()

    async def aclose(self) -> None:
        self.end()

    def deliver(self, data: bytes) -> None:
        super().deliver(data)
        self.world.loop.call_soon_threadsafe(self._changed.set)

    def end(self) -> None:
        if not self.ended:
            super().end()
            with contextlib.suppress(RuntimeError):
                self.world.loop.call_soon_threadsafe(self._changed.set)
