// A participant in a page, as the argument of playwright's `evaluate`. It uses the client that the server serves, and keeps
// what it did and was told in `window.lines`, which `tests.faults.pages` fetches. See `participant.py` for the same in Python.
async (spec) => {
  const began = performance.now();
  const lines = (window.lines = []);
  const ended = new Set();
  const say = (is, facts) => {
    if (is === "closed" || is === "end") ended.add(facts.r);
    lines.push({ is, t: spec.t + (performance.now() - began) / 1000, ...facts });
  };
  const random = (n) => Math.floor(Math.random() * n);
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const me = { name: spec.name, user: spec.user, kind: "page" };
  say("me", me);

  const { connect, Lagged } = await import("/ebus/client.js");
  const client = connect(spec.url, { token: spec.token });
  const buses = new Map();
  const open = (facts) => client.bus(facts.name, { scope: facts.scope, ...facts.spec });
  let writes = true;
  let finishes = false;
  let unanswered = 0;
  let n = 0;
  let readers = 0;
  let heardAt = performance.now();

  const write = (facts, bus) => {
    const how = {};
    if (facts.spec.retain === "keys") how.key = `k${random(8)}`;
    else if (facts.private && random(8) === 0) how.echo = false;
    const mine = ++n;
    say("write", { n: mine, bus: facts.key, ...how });
    unanswered += 1;
    bus.write([spec.name, mine, "x".repeat([0, 10, 100, 2000][random(4)])], how).then(
      (offset) => say("ack", { n: mine, offset }),
      (error) => say(["closed", "no_such_bus"].includes(error.code) ? "unknown" : "refused", { n: mine, code: error.code }),
    ).finally(() => (unanswered -= 1));
  };

  const read = async (facts) => {
    for (;;) {
      const bus = open(facts);
      buses.set(facts.key, bus);
      const r = ++readers;
      say("reader", { r, bus: facts.key, since: "start" });
      const stream = bus.messages({ since: "start" });
      for (;;) {
        try {
          const { value: m, done } = await stream.next();
          if (done) break;
          heardAt = performance.now();
          const more = { ...(m.key == null ? {} : { key: m.key }), ...(m.deleted ? { deleted: true } : {}) };
          say("heard", { r, o: m.offset, id: m.id, v: m.value ?? null, s: [m.sender.id, m.sender.kind, m.sender.user], ...more });
        } catch (error) {
          if (error instanceof Lagged) {
            say("lagged", { r, skipped: error.skipped, after: error.resumeAfter });
            continue;
          }
          say("closed", { r, code: error.code ?? "", reason: String(error) });
          break;
        }
      }
      if (finishes) return;
      await pause(100);
    }
  };

  for (const facts of spec.buses) {
    void read(facts).catch((error) => say("error", { text: `a reader of ${facts.key}: ${error}` }));
  }
  window.addEventListener("error", (event) => say("error", { text: String(event.message) }));
  void (async () => {
    while (client.you == null) await pause(20);
    say("me", { ...me, id: client.you.id });
    while (writes) {
      const facts = spec.buses[random(spec.buses.length)];
      const bus = buses.get(facts.key);
      for (let i = [1, 1, 3, 15][random(4)]; i > 0 && bus && !bus.error; i--) write(facts, bus);
      await pause(random(150));
    }
  })();

  window.quiet = async () => {
    writes = false;
    const until = performance.now() + 60_000;
    while (unanswered > 0 && performance.now() < until) await pause(50);
    return `${unanswered} unanswered`;
  };
  window.finish = async () => {
    finishes = true;
    heardAt = performance.now();
    const until = performance.now() + 60_000;
    while (performance.now() < until && (client.status !== "live" || performance.now() - heardAt < 1500)) await pause(50);
    for (let r = 1; r <= readers; r++) if (!ended.has(r)) say("end", { r, caught_up: client.status === "live" });
    return "finished";
  };
};
