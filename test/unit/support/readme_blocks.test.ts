import { describe, expect, it } from "vitest";
import { codeBlocks, consoleSteps, outputPattern, visibleText } from "../../support/readme_blocks.ts";

describe("codeBlocks", () => {
  it("gives fenced blocks with their language and place", () => {
    expect(codeBlocks("# A\n\n```console\n$ x\n```\ntext\n    indented\n```\n\nplain\n```\n")).toEqual([
      { language: "console", lines: ["$ x"], lineNumber: 4 },
      { language: "", lines: ["", "plain"], lineNumber: 9 },
    ]);
  });

  it("does not pass over a block that is not closed", () => {
    expect(() => codeBlocks("```toml\na = 1\n")).toThrow("line 2 is not closed");
  });
});

describe("consoleSteps", () => {
  const steps = (...lines: string[]) => consoleSteps({ language: "console", lines, lineNumber: 10 });

  it("gives commands, continued ones whole, and their output", () => {
    expect(steps("$ one", "a", "", "b \\", "$ two \\", "    --more \\", "  last", "c")).toEqual([
      { command: "one", expected: ["a", "", "b \\"], lineNumber: 10 },
      { command: "two \\\n    --more \\\n  last", expected: ["c"], lineNumber: 14 },
    ]);
  });

  it("refuses output without a command", () => {
    expect(() => steps("a", "$ b")).toThrow("line 10 is the output of no command");
  });
});

describe("outputPattern", () => {
  it.each([
    [[], ""],
    [["a"], "a\n"],
    [["a (b) [c] {d} $e ^f g.h+i*j? \\ | /"], "a (b) [c] {d} $e ^f g.h+i*j? \\ | /\n"],
    [["sha256:… bytes"], "sha256:0123 bytes\n"],
    [["a…"], "a\n"],
    [["…"], ""],
    [["…"], "a\n\nb\n"],
    [["…", "b", "…"], "b\n"],
    [["…", "b", "…"], "a\nb\nb\nc\n"],
    [["a  b"], "a     b\n"],
    [["a     b"], "a  b\n"],
    [["", "b"], "\nb\n"],
  ])("%j matches %j", (expected, actual) => {
    expect(outputPattern(expected).test(actual)).toBe(true);
  });

  it.each([
    [[], "a\n"],
    [["a"], ""],
    [["a"], "a\nb\n"],
    [["a"], "b\na\n"],
    [["a.b"], "axb\n"],
    [["a…c"], "a\nc\n"],
    [["a  b"], "a b\n"],
    [["a b"], "a  b\n"],
    [["  a"], "    a\n"],
    [["…", "b"], "a\nb\nc\n"],
    [["b", "…"], "a\nb\n"],
    [["a", "b"], "a\n\nb\n"],
  ])("%j does not match %j", (expected, actual) => {
    expect(outputPattern(expected).test(actual)).toBe(false);
  });
});

describe("visibleText", () => {
  it("drops what nobody sees, and nothing else", () => {
    expect(visibleText("a \r\n\r\n  b\t\n c")).toBe("a\n\n  b\n c\n");
    expect(visibleText("")).toBe("");
    expect(visibleText('a\npulling 8% 1 B of 2 B, 1 B/s, 1 s left (kernel sha256:0)\npulling is "never"\n'))
      .toBe(
        'a\npulling is "never"\n',
      );
  });
});
