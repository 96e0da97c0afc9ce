"""The faults, each with how often it is drawn."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from .actors import KernelActor
from .proxy import Line
from .stage import Stage

# --- lines ------------------------------------------------------------------------------------------------------------


def line_faults(rng: random.Random) -> dict[str, tuple[int, Callable[[Line], None], float]]:
    """The faults of a line: weight, how it begins, and for how long it lasts."""

    def put(**facts: Any) -> Callable[[Line], None]:
        def begin(line: Line) -> None:
            for name, value in facts.items():
                setattr(line, name, value)

        return begin

    def refuse(line: Line) -> None:
        line.refuses = True
        line.cut(reset=True)

    return {
        "line reset": (6, lambda line: line.cut(reset=True), 0.0),
        "line closed": (4, lambda line: line.cut(reset=False), 0.0),
        "line cut in a message": (4, put(cuts_midway=True), 0.1),
        "line refused": (2, refuse, rng.uniform(0.05, 0.6)),
        "line stalled": (3, put(stalls=frozenset({"up", "down"})), rng.choice([0.1, 0.3, 1.0, 5.0])),
        "line half-open, up": (2, put(stalls=frozenset({"up"})), rng.choice([0.1, 0.3, 1.0, 5.0])),
        "line half-open, down": (2, put(stalls=frozenset({"down"})), rng.choice([0.1, 0.3, 1.0, 5.0])),
        "line delayed": (3, put(delay=rng.uniform(0.01, 0.2)), rng.uniform(0.2, 1.0)),
        "line throttled": (3, put(bytes_per_second=rng.choice([2_000, 20_000, 100_000])), rng.uniform(0.2, 1.5)),
        "line in pieces": (3, put(piece_bytes=rng.choice([1, 3, 50])), rng.uniform(0.2, 1.0)),
        "messages repeated": (5, put(repeats=True), rng.uniform(0.1, 0.8)),
    }


def acted(kind: str, line: Line) -> Callable[[], bool]:
    """Tells at the end of a fault that begins now whether there was anything that it acted on."""
    carried, repeated = line.carried, line.repeated
    match kind:
        case "messages repeated":
            return lambda: line.repeated > repeated
        case "line delayed" | "line throttled" | "line in pieces":
            return lambda: line.carried > carried
        case "line cut in a message":
            return lambda: not line.cuts_midway
    return lambda: True  # it has a connection


def disturb_line(stage: Stage, n: int, seed: float, stop: threading.Event) -> None:
    """Go on disturbing the ``n``-th line until ``stop``."""
    rng = random.Random(seed)
    _, line = stage.lines()[n]
    while not stop.wait(rng.expovariate(1 / 0.12)):
        kinds = line_faults(rng)
        kind = rng.choices(list(kinds), [weight for weight, _, _ in kinds.values()])[0]
        _, begin, seconds = kinds[kind]
        if not line.is_in_use:
            continue
        with stage.fault(kind, stage.lines()[n][0], counts=acted(kind, line)):
            begin(line)
            stop.wait(seconds)
        line.heal()


# --- the server -------------------------------------------------------------------------------------------------------


class ServerFaults:
    """What happens to the server, one after the other."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.server, self.random = stage, stage.server, stage.random

    def kinds(self) -> dict[str, tuple[int, Callable[[], None]]]:
        found: dict[str, tuple[int, Callable[[], None]]] = {
            "server killed": (8, self.killed),
            "server killed at its start": (1, self.killed_at_its_start),
            "server stopped and continued": (8, self.stopped),
            "server restarted": (2, self.restarted),
            "disk full": (8, self.disk_full),
            "clock stepped": (8, self.clock_stepped),
            "bus deleted": (5, partial(self.stage.delete_bus, "brief")),
            "file read-only": (1, self.read_only),
            "file taken by another server": (1, self.taken),
            "file open in a browser": (1, self.browsed),
            "client process killed": (3, self.killed_client),
            "client process stopped": (5, self.stopped_client),
            "client process forked": (5, self.forked_client),
        }
        if self.stage.copies:
            found["older copy of the file"] = 3, self.older_copy
            found["file corrupt"] = 2, self.corrupt
        return found

    def one(self) -> None:
        """Draw a fault, and let it happen."""
        kinds = self.kinds()
        kind = self.random.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        with self.stage.fault(kind):
            kinds[kind][1]()

    def killed(self) -> None:
        self.stage.kill_server()
        if self.random.random() < 0.5:
            self.stage.keep_copy()
        self.stage.start_server()

    def killed_at_its_start(self) -> None:
        self.stage.kill_server()
        self.server.start()
        self.stage.stopped.wait(self.random.uniform(0, 0.2))
        self.stage.kill_server()
        self.stage.start_server()

    def stopped(self) -> None:
        self.stage.stop_and_continue(self.random.choice([0.05, 0.3, 1.0, 3.0]))

    def restarted(self) -> None:
        self.server.stop()
        if self.random.random() < 0.5:
            self.stage.keep_copy()
        self.stage.start_server()

    def disk_full(self) -> None:
        with self.server.full_disk(self.random.choice([0, 10_000, 100_000])):
            self.stage.stopped.wait(self.random.uniform(0.2, 1.5))

    def clock_stepped(self) -> None:
        ahead = self.random.choice([-86_400.0, -3600.0, -5.0, 5.0, 3600.0, 86_400.0])
        self.server.step_clock(ahead)
        self.stage.stopped.wait(self.random.uniform(0.1, 0.8))
        self.server.step_clock(0.0)

    def read_only(self) -> None:
        """The server comes back and may not write: it must say so, and nothing may be lost."""
        self.stage.kill_server()
        with self.server.read_only():
            self.stage.start_server(opens=False)
            self.stage.stopped.wait(0.5)
            self.stage.kill_server()
        self.stage.start_server()

    def browsed(self) -> None:
        self.stage.kill_server()
        with self.server.open_in_a_browser():
            self.stage.start_server(opens=False)
            self.stage.stopped.wait(0.5)
            self.stage.kill_server()
        self.stage.start_server()

    # --- another history --------------------------------------------------------------------------------------------

    def older_copy(self) -> None:
        copy = self.random.choice(self.stage.copies)
        with self.stage.nobody_there():
            self.stage.audit("end")
            self.stage.kill_server()
            self.server.put_back(copy)
            self.stage.start_server()
            self.stage.audit("begin")

    def taken(self) -> None:
        """Another server has the file: this one uses the file beside it, and later goes on with its own."""
        stage = self.stage
        with stage.nobody_there():
            before = stage.audit("end")
            stage.kill_server()
        with self.server.taken_by_a_server():
            with stage.nobody_there():
                stage.start_server()
                stage.audit("begin")
            stage.stopped.wait(1.0)
            with stage.nobody_there():
                stage.audit("end")
                stage.kill_server()
        with stage.nobody_there():
            for path in self.server.database.parent.glob(f"{self.server.database.stem}.2*"):
                path.unlink()
            stage.start_server()
            stage.audit("begin", resumes=before)

    def corrupt(self) -> None:
        """The file is damaged; the server says so, and is given a copy of the file."""
        stage = self.stage
        with stage.nobody_there():
            stage.audit("end")
            stage.kill_server()
            self.server.damage(self.random.choice(["head", "end"]))
            stage.start_server(opens=False)
            stage.audit("begin", is_damaged=True)
        stage.stopped.wait(1.0)
        with stage.nobody_there():
            stage.audit("end", is_damaged=True)
            stage.kill_server()
            self.server.put_back(self.random.choice(stage.copies))
            stage.start_server()
            stage.audit("begin")

    # --- clients ----------------------------------------------------------------------------------------------------

    def killed_client(self) -> None:
        self.stage.replace(self.random.choice(self.stage.actors))

    def stopped_client(self) -> None:
        actor = self.random.choice(self.stage.actors)
        actor.signal(signal.SIGSTOP)
        self.stage.stopped.wait(self.random.choice([0.05, 0.3, 1.0, 3.0]))
        actor.signal(signal.SIGCONT)

    def forked_client(self) -> None:
        self.random.choice(self.stage.actors).command("fork")


class KernelFaults(ServerFaults):
    """What happens to kernels, and to a server that lives on: its kernels end with it."""

    def kinds(self) -> dict[str, tuple[int, Callable[[], None]]]:
        return {
            "kernel killed": (2, self.killed_client),
            "kernel restarted": (2, self.restarted_kernel),
            "kernel interrupted": (8, self.interrupted),
            "kernel forked": (8, self.forked_client),
            "kernel stopped and continued": (6, self.stopped_client),
            "server stopped and continued": (3, self.stopped),
            "disk full": (3, self.disk_full),
            "clock stepped": (3, self.clock_stepped),
            "bus deleted": (2, partial(self.stage.delete_bus, "brief")),
        }

    def _kernel(self) -> KernelActor:
        return self.random.choice([actor for actor in self.stage.actors if isinstance(actor, KernelActor)])

    def restarted_kernel(self) -> None:
        kernel = self._kernel()
        self.stage.note_killed(kernel.name)
        kernel.restart(self.stage.kernel_spec(kernel.kernel.id, kernel.user))

    def interrupted(self) -> None:
        self._kernel().interrupt_at_work(self.random.uniform(0.0, 0.3))


class PageFaults(ServerFaults):
    """What happens to pages, and to the server that they come from."""

    def kinds(self) -> dict[str, tuple[int, Callable[[], None]]]:
        found: dict[str, tuple[int, Callable[[], None]]] = {
            "page reloaded": (4, self.killed_client),
            "page hidden": (5, self.hidden),
            "page asleep": (5, self.asleep),
            "page offline": (5, self.offline),
            "server killed": (4, self.killed),
            "server stopped and continued": (3, self.stopped),
            "disk full": (3, self.disk_full),
            "clock stepped": (3, self.clock_stepped),
            "bus deleted": (2, partial(self.stage.delete_bus, "brief")),
        }
        if self.stage.copies:
            found["older copy of the file"] = 2, self.older_copy
        return found

    def _while(self) -> Callable[[], object]:
        return partial(self.stage.stopped.wait, self.random.choice([0.1, 0.5, 2.0, 6.0]))

    def hidden(self) -> None:
        self.random.choice(self.stage.pages.actors).hide(self._while())

    def asleep(self) -> None:
        self.random.choice(self.stage.pages.actors).sleep(self._while())

    def offline(self) -> None:
        self.random.choice(self.stage.pages.actors).go_offline(self._while())
