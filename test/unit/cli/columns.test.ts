import { describe, expect, it } from "vitest";
import { formatColumns } from "../../../src/cli/columns.ts";

describe("formatColumns", () => {
  it("aligns rows under their head, two blanks apart, without trailing blanks", () => {
    expect(formatColumns(["A", "LONGER", "C"], [["one", "2", "x"], ["", "three", ""]])).toBe(
      "A    LONGER  C\none  2       x\n     three\n",
    );
  });

  it("prints the head of an empty table", () => {
    expect(formatColumns(["A", "B"], [])).toBe("A  B\n");
  });

  it("keeps a hostile cell on its line, visible, and the columns straight", () => {
    expect(formatColumns(["NAME", "B"], [["a\x1b[31m\nb\u202e", "x"], ["c", "y"]])).toBe(
      "NAME                      B\na\\u001b[31m\\u000ab\\u202e  x\nc                         y\n",
    );
  });

  it("takes more rows than a function takes arguments", () => {
    const rows = Array.from({ length: 200_000 }, () => ["a"]);
    expect(formatColumns(["HEAD"], rows).length).toBe("HEAD\n".length + 2 * 200_000);
  });
});
