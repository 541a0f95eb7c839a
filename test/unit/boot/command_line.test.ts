import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CommandLineParts, mergeCommandLine } from "../../../src/boot/command_line.ts";
import { ShimError } from "../../../src/errors.ts";
import { FUZZ_RUNS } from "../../support/fuzz_runs.ts";
import { randomWord } from "../../support/random_word.ts";
import { refusalOf } from "../../support/failures.ts";

const word = randomWord();

function refuse(parts: CommandLineParts, message: string, details = {}): void {
  expect(refusalOf(() => mergeCommandLine(parts))).toEqual({ code: "CMDLINE_INVALID", message, details });
}

describe("mergeCommandLine", () => {
  it.each<[string, CommandLineParts, string]>([
    ["nothing", {}, ""],
    ["the configuration", { config: `console=ttyS0 ${word}` }, `console=ttyS0 ${word}`],
    ["the layer before the configuration", { layer: word, config: "b" }, word],
    ["the replacement before both", { replacement: word, layer: "b", config: "c" }, word],
    ["an empty layer before the configuration", { layer: "", config: "b" }, ""],
    ["an empty replacement before all", { replacement: "", layer: "b", config: "c" }, ""],
    ["blanks as they are", { config: "  a   b " }, "  a   b "],
    ["an open quote as it is", { config: 'a="b c' }, 'a="b c'],
    ["letters beyond ASCII", { config: "größe=😀\u00a0x" }, "größe=😀\u00a0x"],
  ])("takes %s", (_name, parts, line) => {
    expect(mergeCommandLine(parts)).toBe(line);
  });

  it.each(["\n", "\0", "\r\n", "\n\n\0\n", "\0\0\0"])(
    "trims %j from the end, wherever the line comes from",
    (end) => {
      for (const from of ["replacement", "layer", "config"]) {
        expect(mergeCommandLine({ [from]: `a b=${word} ${end}` })).toBe(`a b=${word} `);
        expect(mergeCommandLine({ [from]: end })).toBe("");
      }
    },
  );

  it.each<[string, string, readonly string[], string]>([
    ["adds a flag", "a=1", ["quiet"], "a=1 quiet"],
    ["adds a value", "a=1", ["b=2"], "a=1 b=2"],
    ["adds to an empty line", "", ["a", "b"], "a b"],
    ["replaces a value in its place", "a=1 b=2 c=3", ["b=x"], "a=1 b=x c=3"],
    ["replaces a flag by a value", "a quiet b", ["quiet=0"], "a quiet=0 b"],
    ["replaces a value by a flag", "a=1 b", ["a"], "a b"],
    [
      "replaces every occurrence by one",
      "console=tty0 a console=ttyS0 b",
      ["console=ttyS1"],
      "console=ttyS1 a b",
    ],
    ["lets the last of equal appends win", "a", ["b=1", "b=2"], "a b=2"],
    ["takes appends in their order", "", ["b=1", "a=1", "c"], "b=1 a=1 c"],
    ["keeps keys apart that begin alike", "ab=1 a=2", ["a=3"], "ab=1 a=3"],
    ["keeps case apart", "A=1", ["a=2"], "A=1 a=2"],
    ["splits at the first = only", "a=b=c", ["a=d=e"], "a=d=e"],
    ["sets an empty value", "a=1", ["a="], "a="],
    ["keeps a quoted value together", 'a="x y" b', ["b=2"], 'a="x y" b=2'],
    ["replaces a quoted value", 'a="x y" b', ["a=z"], "a=z b"],
    ["adds a quoted value", "a", ['b="x  y"'], 'a b="x  y"'],
    [
      "adds a value with quotes inside",
      "a",
      ['dyndbg="file a +p; file b +p"x'],
      'a dyndbg="file a +p; file b +p"x',
    ],
    ["sees no key inside quotes", 'a="b=1 c=2"', ["b=3"], 'a="b=1 c=2" b=3'],
    ["makes one blank of many", "  a   b ", ["c"], "a b c"],
    ["keeps a no-break space in its word", "a=x\u00a0y b", ["c=z\u00a0z"], "a=x\u00a0y b c=z\u00a0z"],
    ["adds before --", "a -- init args", ["b=1"], "a b=1 -- init args"],
    ["replaces before -- only", "a=1 -- a=2 a=3", ["a=9"], "a=9 -- a=2 a=3"],
    ["adds what stands behind -- only", "x -- a=2", ["a=9"], "x a=9 -- a=2"],
    ["heeds the first -- only", "a -- b -- c", ["d"], "a d -- b -- c"],
    ["sees no -- in a longer word", "a --b", ["c"], "a --b c"],
  ])("%s", (_name, config, appends, line) => {
    expect(mergeCommandLine({ config, appends })).toBe(line);
  });

  it.each([
    ["nothing", "", "root=/dev/vda rw"],
    ["other words", "a=1 b", "a=1 b root=/dev/vda rw"],
    [
      "a word that ends in root",
      "nfsroot=x rootwait rootfstype=ext4",
      "nfsroot=x rootwait rootfstype=ext4 root=/dev/vda rw",
    ],
    ["a root", "root=LABEL=x a", "root=LABEL=x a"],
    ["words for init", "a -- b", "a root=/dev/vda rw -- b"],
    ["a root that is a word for init", "a -- root=/dev/vdb", "a root=/dev/vda rw -- root=/dev/vdb"],
    ["a root in quotes", 'a="x root=/dev/vdb"', 'a="x root=/dev/vdb" root=/dev/vda rw'],
  ])("beside a root disk, makes of %s the line that names one", (_name, config, line) => {
    expect(mergeCommandLine({ config, hasRootDisk: true })).toBe(line);
  });

  it("lets an append name the root", () => {
    expect(mergeCommandLine({ config: "a", appends: ["root=/dev/vdb"], hasRootDisk: true })).toBe(
      "a root=/dev/vdb",
    );
  });

  it("adds no root without a root disk", () => {
    expect(mergeCommandLine({ config: "a", hasRootDisk: false })).toBe("a");
  });

  it.each([
    ["NUL", "\0", "00"],
    ["newline", "\n", "0a"],
    ["carriage return", "\r", "0d"],
    ["tab", "\t", "09"],
    ["escape", "\u001b", "1b"],
    ["delete", "\u007f", "7f"],
    ["a C1 control", "\u0085", "85"],
  ])("HD20 refuses %s anywhere but at the end", (_name, control, hex) => {
    const why = (position: number) =>
      `Cannot use the command line: control character 0x${hex} at position ${position}, must be printable text`;
    refuse({ config: `ab${control}c` }, why(2));
    refuse({ layer: `${control}a` }, why(0));
    refuse({ replacement: `${control}${control}a\n`, config: "fine" }, why(0));
    refuse({ appends: [`k=${control}v`] }, why(2));
  });

  it.each(["\ud800", "\udc00x", "a\ud83d"])("HD20 refuses half a surrogate pair in %j", (broken) => {
    const message = "Cannot use the command line: it holds a broken Unicode character, must be valid UTF-8";
    refuse({ config: broken }, message);
    refuse({ appends: [`k=${broken}`] }, message);
  });

  it.each<[string, CommandLineParts]>([
    ["one-byte letters", { config: "a".repeat(2047) }],
    ["two-byte letters", { config: `${"é".repeat(1023)}a` }],
    ["four-byte letters", { config: `${"😀".repeat(511)}aaa` }],
    ["a line and what is appended", { config: `a=${"1".repeat(2043)}`, appends: ["b"] }],
    ["a line and its root", { config: "a".repeat(2047 - " root=/dev/vda rw".length), hasRootDisk: true }],
  ])("HD20 takes exactly 2,047 bytes of %s, and refuses one more", (_name, parts) => {
    expect(Buffer.byteLength(mergeCommandLine(parts))).toBe(2047);
    refuse(
      { ...parts, config: `${parts.config}a` },
      "Cannot use the command line: 2048 bytes, must be at most 2047 bytes",
    );
  });

  it.each([
    ["nothing", ""],
    ["a blank", " "],
    ["two words", "a b"],
    ["no key", "=x"],
    ["a blank at the end", "a "],
    ["a blank in front", " a"],
    ["an unquoted value with blanks", "a=x y"],
    ["an open quote", 'a="x'],
    ["two quotes and an open one", 'a="x""'],
  ])("HD20 refuses to append %s", (_name, append) => {
    refuse(
      { config: "c", appends: [append] },
      `Cannot append ${JSON.stringify(append)} to the command line: must be one KEY or KEY=VALUE`,
      {
        remedy: "put a value with blanks into double quotes: --append 'key=\"a b\"'",
      },
    );
  });

  it("refuses to add to a line whose open quote would take it in", () => {
    const message =
      "Cannot add to the command line: a double quote in it is not closed, and would take in what is added";
    refuse({ config: 'a="b c', appends: ["d"] }, message);
    refuse({ config: 'a="b c', hasRootDisk: true }, message);
  });

  it.each([
    ["newlines", `${"\n".repeat(1_000_000)}x`],
    ["NULs", `${"\0".repeat(1_000_000)}x`],
    ["quotes", '"'.repeat(1_000_001)],
    ["letters", "a".repeat(1_000_000)],
    ["blanks", " ".repeat(1_000_000)],
  ])("HD20 takes linear time on 1 MB of hostile %s", (_name, text) => {
    const started = performance.now();
    for (const parts of [{ layer: text }, { appends: [text] }]) {
      expect(refusalOf(() => mergeCommandLine(parts)).code).toBe("CMDLINE_INVALID");
    }
    expect(performance.now() - started).toBeLessThan(1000);
  });

  it("gives one printable line of at most 2,047 bytes or CMDLINE_INVALID, whatever the parts", () => {
    const anyCharacter = fc.nat(0xffff).map((code) => String.fromCharCode(code));
    const text = fc.oneof(
      fc.array(fc.constantFrom("a", "b=", "=", '"', " ", "--", "root=", "\n", "\0", "é", "\ud800"), {
        maxLength: 12,
      }).map((all) => all.join("")),
      fc.string({ unit: anyCharacter, maxLength: 30 }),
    );
    const parts = fc.record({
      replacement: fc.option(text, { nil: undefined }),
      layer: fc.option(text, { nil: undefined }),
      config: fc.option(text, { nil: undefined }),
      appends: fc.array(text, { maxLength: 2 }),
      hasRootDisk: fc.boolean(),
    });
    fc.assert(
      fc.property(parts, (drawn) => {
        try {
          const line = mergeCommandLine(drawn);
          expect(line.isWellFormed() && [...line].every((each) => each >= " " && each !== "\u007f")).toBe(
            true,
          );
          expect(Buffer.byteLength(line)).toBeLessThanOrEqual(2047);
          // What was merged once is final.
          expect(mergeCommandLine({ config: line })).toBe(line);
        } catch (error) {
          expect(error instanceof ShimError && error.code).toBe("CMDLINE_INVALID");
        }
      }),
      { numRuns: FUZZ_RUNS },
    );
  });
});
