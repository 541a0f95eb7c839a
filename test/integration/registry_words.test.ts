/** What a registry says of itself is shown, and does nothing to the terminal or log that shows it: the real command. */
import { describe, expect, it } from "vitest";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { bootshim } from "../support/bootshim_command.ts";
import { type Answer, respond, startFaultServer } from "../support/fault_server.ts";
import { randomWord } from "../support/random_word.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const directory = useTemporaryDirectory();

/** Clears a screen by seven and by eight bits, begins lines of its own, turns the writing, rings, renames the window. */
const hostile = (word: string) =>
  `${word}\x1b[2J\x9b2J\r\nbootshim: all is well\rok\u2028${word}\u202e\x07\x1b]0;${word}\x07\0\x7f`;

const errorDocument = (word: string): Answer =>
  respond(403, {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      errors: [{ code: hostile(word), message: hostile(word), detail: { [hostile(word)]: hostile(word) } }],
    }),
  });

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** Each brings words of the registry's to where errors and logs are made. */
const ANSWERS: Readonly<Record<string, (word: string) => Answer>> = {
  "an error document": errorDocument,
  "a page for people": (word) =>
    respond(500, { headers: { "Content-Type": "text/html" }, body: hostile(word) }),
  "a manifest's fields": (word) =>
    respond(200, {
      headers: { "Content-Type": OCI_MANIFEST },
      body: JSON.stringify({
        schemaVersion: 2,
        mediaType: hostile(word),
        config: { mediaType: hostile(word), digest: hostile(word), size: 2 },
        layers: [],
      }),
    }),
  "JSON that ends early": (word) =>
    respond(200, { headers: { "Content-Type": OCI_MANIFEST }, body: `{"${hostile(word)}` }),
  // Control characters in a header break the protocol, which allows bytes above 127.
  "a warning": (word) => {
    const [first, second] = errorDocument(word);
    const head = first && "send" in first ? String(first.send) : "";
    const warned = head.replace("\r\n\r\n", `\r\nWarning: 299 - "${word} \x9b2J \u0085 end"\r\n\r\n`);
    return [{ send: Buffer.from(warned, "latin1") }, ...second ? [second] : []];
  },
  "a status line": (word) => [{
    send: Buffer.from(`HTTP/1.1 503 ${word} \x9b2J\r\nContent-Length: 0\r\n\r\n`, "latin1"),
  }],
  "a challenge": (
    word,
  ) => [{
    send: bytesOf(
      `HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="\x1b[2J${word}"\r\nContent-Length: 0\r\n\r\n`,
    ),
  }],
  "a way elsewhere": (
    word,
  ) => [{
    send: bytesOf(`HTTP/1.1 307 Go\r\nLocation: http://\x1b[2J${word}/\r\nContent-Length: 0\r\n\r\n`),
  }],
};

/** What may move a cursor, end a line or turn the direction of writing. */
// deno-lint-ignore no-control-regex
const UNFIT = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;
/** The same and the line feed, each. */
const UNFIT_EACH = new RegExp(`${UNFIT.source}|\n`, "gu");

describe("HI09 a hostile registry's words", () => {
  it.each(Object.keys(ANSWERS))("are one escaped line each, in text and as JSON: %s", async (what) => {
    const word = randomWord();
    await using server = await startFaultServer(() => ANSWERS[what]?.(word) ?? respond(500));
    const argv = ["pull", `${server.host}/os/demo:1`];
    const options = { root: directory() };

    const plain = await bootshim(argv, options);
    expect(plain.exitCode).not.toBe(0);
    expect(plain.stdout).toBe("");
    expect(plain.stderr).not.toMatch(UNFIT);
    const lines = plain.stderr.trimEnd().split("\n");
    expect(lines.filter((line) => line.startsWith("bootshim: "))).toHaveLength(1);
    // Beside the error there are records of the log only, each with its time and level.
    for (const line of lines) expect(line).toMatch(/^(?:bootshim: [A-Z_]+: |\d{4}-\d\d-\d\dT\S+Z \w+ )/);

    const json = await bootshim(
      [...argv, "-o", "json", "--log-format", "json", "--log-level", "trace"],
      options,
    );
    expect(json.stderr).not.toMatch(UNFIT);
    for (const line of json.stderr.trimEnd().split("\n")) {
      if (line.startsWith("{")) expect(() => JSON.parse(line)).not.toThrow();
      else expect(line).not.toMatch(/^bootshim: /);
    }
  });

  it("still say what they say, so that a person can go by them", async () => {
    const word = randomWord();
    await using server = await startFaultServer(() => errorDocument(word));
    const { exitCode, stderr } = await bootshim(["pull", `${server.host}/os/demo:1`], { root: directory() });
    expect(exitCode).toBe(77);
    const shown = hostile(word).replaceAll(UNFIT_EACH, (each) => `\\u{${each.charCodeAt(0).toString(16)}}`);
    expect(stderr).toContain(`(${shown}: ${shown})`);
  });
});
