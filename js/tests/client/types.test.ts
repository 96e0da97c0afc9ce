/** The types that programs see. `npm run check` verifies the expectations; running the tests does not. */
import { expectTypeOf, it } from "vitest";

import { connect, type Bus, type Client, type Message } from "../../src/client/index.js";
import { sharedState, type State } from "../../src/client/state.js";

interface Vote {
  choice: string;
}

interface Post extends Vote {
  author: string;
}

declare const client: Client;

it("connect returns a client", () => {
  expectTypeOf(connect).returns.toEqualTypeOf<Client>();
});

/** Compiled, but never called. */
export async function aBusOfVotes(): Promise<void> {
  const votes = client.bus<Vote>("votes", { scope: "server" });
  expectTypeOf(votes).toEqualTypeOf<Bus<Vote, Vote>>();

  expectTypeOf<Parameters<typeof votes.write>[0]>().toEqualTypeOf<Vote>();
  expectTypeOf(await votes.write({ choice: "tea" })).toEqualTypeOf<number>();
  // @ts-expect-error -- the value has another type
  await votes.write({ choice: 1 });

  for await (const vote of votes.stream({ since: "start" })) expectTypeOf(vote).toEqualTypeOf<Vote>();
  for await (const message of votes.messages()) expectTypeOf(message).toEqualTypeOf<Message<Vote>>();
  votes.on((vote) => expectTypeOf(vote).toEqualTypeOf<Vote>());
  votes.onMessage(({ value }) => expectTypeOf(value).toEqualTypeOf<Vote>());
  expectTypeOf(await votes.history()).toEqualTypeOf<Vote[]>();
  expectTypeOf(await votes.stream().get()).toEqualTypeOf<Vote>();
}

/** A filter returns posts for votes. */
export async function aFilteredBus(): Promise<void> {
  const posts = client.bus<Vote, Post>("posts");
  expectTypeOf<Parameters<typeof posts.write>[0]>().toEqualTypeOf<Vote>();
  for await (const post of posts.stream()) expectTypeOf(post).toEqualTypeOf<Post>();
  posts.on((post) => expectTypeOf(post).toEqualTypeOf<Post>());
}

export async function aBusWithoutAType(): Promise<void> {
  const any = client.bus("any");
  expectTypeOf(any).toEqualTypeOf<Bus>();
  await any.write({ whatever: [1, "two"] });
  expectTypeOf(await any.stream().get()).toBeUnknown();
}

export async function aState(): Promise<void> {
  const speeds = sharedState<number>(client, "speeds");
  expectTypeOf(speeds).toEqualTypeOf<State<number>>();
  expectTypeOf(speeds.get("left")).toEqualTypeOf<number | undefined>();
  // @ts-expect-error -- the value has another type
  await speeds.set("left", "fast");
  speeds.onChange(({ value }) => expectTypeOf(value).toEqualTypeOf<number | undefined>());
}
