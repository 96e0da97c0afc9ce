/**
 * The names inside of the client that its bundle shortens: the client's size is bounded, and long names are part of it.
 *
 * A listed property belongs to the client's own objects only. Nothing that a program sees, that the platform has, or that
 * another bundle uses is listed; `tests/built.test.ts` checks that, and runs the built module.
 */
import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Properties and methods of internal objects, and fields of frames. */
export const PROPERTIES = `
  addWrite address advanced after answered append batch begin behind cancel channel connectionLost connectionMade count
  dataReceived dataToSend delivered dispatch emit fields fresh full handle handles hasBegun here isWaiting joinedAt label
  leaveIdle listener live logStart messagesArrived missed more number opening pace params pingSent ponged presenceChanged
  presenceReceived rate readError readNowait reader reading receiveData reconnect recovered refused report req request requests
  resetSkipped resets restart resumable resumePosition retryAt runner sendRequest session settle settled stopUntil
  subscribePosition subscribeRequest subscribed subscription tail target through tick unacked unreadable unsubscribed until
  updatePresence updateSubscription wait wake wantsMessages wantsPresence watching writes
`
  .trim()
  .split(/\s+/);

/** Types of events and frames, and kinds of requests, where they are compared with each other only. */
export const WORDS = `
  advance bus_closed bus_opened connection_ended delivery error_reported listed messages_arrived page pong presence_changed
  reopen request_settled requested subscribe welcome welcomed write_settled
`
  .trim()
  .split(/\s+/);

/** The letters, those first that minified code has most: that compresses best. No property that a program sees has one letter. */
const LETTERS = [..."tesirnhlaoucdfpmgwbyvkxqjzSTEIRNALOCDPFUMBGVHWKYXQJZ"];
const shortened = (names) => Object.fromEntries(names.map((name, i) => [name, LETTERS[i % 52] + (i < 52 ? "" : Math.floor(i / 52))]));

const source = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const text = ["core", "client"]
  .flatMap((room) => readdirSync(join(source, room)).map((file) => readFileSync(join(source, room, file), "utf8")))
  .join("\n");
const uses = new Map(PROPERTIES.map((name) => [name, text.split(new RegExp(`\\b${name}\\b`)).length]));

const properties = shortened(PROPERTIES.toSorted((a, b) => uses.get(b) - uses.get(a)));
const words = shortened(WORDS);

/** Options for esbuild. */
export const mangleOptions = { mangleProps: new RegExp(`^(${PROPERTIES.join("|")})$`), mangleCache: properties };

/** Shortens the words, and the fields in the table of frames, which has them as text. */
export const mangleWords = {
  name: "mangle-words",
  setup({ onLoad }) {
    onLoad({ filter: /\/src\/(core|client)\/\w+\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text
        .replace(/^( {2}\d\d: ")(\w+)( [\w ]+)?(",)$/gm, (_, head, type, fields = "", tail) => {
          const short = fields.replace(/\w+/g, (name) => properties[name] ?? name);
          return head + (words[type] ?? type) + short + tail;
        })
        .replace(/"(\w+)"/g, (quoted, word) => (Object.hasOwn(words, word) ? `"${words[word]}"` : quoted));
      return { contents, loader: "ts" };
    });
  },
};
