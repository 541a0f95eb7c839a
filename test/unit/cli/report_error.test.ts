import { describe, expect, it } from "vitest";
import { formatError } from "../../../src/cli/report_error.ts";
import { ShimError } from "../../../src/errors.ts";

const TEXT = { format: "text", isDebug: false } as const;
const JSON_STYLE = { format: "json", isDebug: false } as const;

describe("formatError", () => {
  it("gives one line: code, message, remedy", () => {
    const error = new ShimError("NO_SPACE", "Cannot write", { details: { remedy: "make room" } });
    expect(formatError(error, TEXT)).toBe("bootshim: NO_SPACE: Cannot write (make room)\n");
    expect(formatError(new ShimError("BUSY", "Cannot open"), TEXT)).toBe("bootshim: BUSY: Cannot open\n");
  });

  it("gives the document of the contract, on one line", () => {
    const error = new ShimError("REGISTRY_TIMEOUT", "Cannot fetch\nit", { details: { host: "h.example" } });
    const text = formatError(error, JSON_STYLE);
    expect(text.match(/\n/g)).toHaveLength(1);
    expect(JSON.parse(text)).toEqual({
      error: {
        code: "REGISTRY_TIMEOUT",
        message: "Cannot fetch\nit",
        retryable: true,
        details: { host: "h.example" },
      },
    });
  });

  it("HI09 keeps what JSON would leave bare from the terminal: the document says the same", () => {
    const message = "Cannot fetch: \x9b2J\u202e\u2028\x85";
    const text = formatError(new ShimError("REGISTRY_DENIED", message), JSON_STYLE);
    expect(text).toContain("\\u009b2J\\u202e\\u2028\\u0085");
    expect(JSON.parse(text).error.message).toBe(message);
  });

  it("HI09 keeps a hostile message on its line", () => {
    const error = new ShimError(
      "REGISTRY_DENIED",
      "Cannot fetch: the registry says \x1b[2J\nbootshim: all is well",
      {
        details: { remedy: "ask\u202e" },
      },
    );
    expect(formatError(error, TEXT)).toBe(
      "bootshim: REGISTRY_DENIED: Cannot fetch: the registry says \\u001b[2J\\u000abootshim: all is well (ask\\u202e)\n",
    );
  });

  it.each([
    [new TypeError("x is undefined"), "x is undefined"],
    ["a word", "a word"],
    [undefined, "undefined"],
  ])("calls what has no code INTERNAL, without a stack: %j", (thrown, why) => {
    expect(formatError(thrown, TEXT)).toBe(
      `bootshim: INTERNAL: Cannot go on: unexpected failure, ${why}\n`,
    );
    expect(JSON.parse(formatError(thrown, JSON_STYLE))).toMatchObject({ error: { code: "INTERNAL" } });
  });

  it("shows stacks of the error and its causes for debugging, without control characters, before the line", () => {
    const cause = new Error("the \x1b[31mcause");
    const error = new ShimError("IO_ERROR", "Cannot read", { cause });
    const lines = formatError(error, { format: "text", isDebug: true }).split("\n");
    expect(lines[0]).toMatch(/Cannot read$/);
    expect(lines.find((line) => line.startsWith("caused by: "))).toBe(
      "caused by: Error: the \\u001b[31mcause",
    );
    expect(lines.at(-2)).toBe("bootshim: IO_ERROR: Cannot read");
    expect(lines.filter((line) => line.trim().startsWith("at ")).length).toBeGreaterThan(1);
  });
});
