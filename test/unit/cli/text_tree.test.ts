import { describe, expect, it } from "vitest";
import { formatTree, type TreeNode } from "../../../src/cli/text_tree.ts";
import { randomWord } from "../../support/random_word.ts";

const FILE = { columns: null, hasColour: false };
const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}`;

const tree: TreeNode = {
  cells: [`index ${DIGEST}`],
  children: [
    {
      cells: ["amd64", "virtualization", DIGEST, "<- chosen"],
      look: "strong",
      children: [{ cells: ["kernel", "13 MiB"] }, { cells: ["initramfs", "1 MiB"], look: "faint" }],
    },
    { cells: ["arm64", "metal", DIGEST, ""] },
  ],
};

describe("formatTree", () => {
  it("draws branches, and aligns the cells of brothers", () => {
    expect(formatTree(tree, FILE)).toBe([
      `index ${DIGEST}`,
      `|-- amd64  virtualization  ${DIGEST}  <- chosen`,
      "|   |-- kernel     13 MiB",
      "|   `-- initramfs  1 MiB",
      `\`-- arm64  metal           ${DIGEST}`,
      "",
    ].join("\n"));
  });

  it.each([40, 60, 79, 100, 117])(
    "on %i columns breaks lines between words only, and loses none",
    (columns) => {
      const text = formatTree(tree, { ...FILE, columns });
      const lines = text.trimEnd().split("\n");
      for (const line of lines) {
        // A word that is wider than the terminal is alone in its line, so that it can be copied.
        if (line.length > columns) expect(line).toMatch(/^[|` -]*sha256:\w{64}$/);
        // Behind the guides, nothing of a broken line looks like a branch of its own.
        expect(line).toMatch(/^(index|boot|(\| {3}| {4})*([|`]-- )? *[^ |`])/);
      }
      const words = (drawn: string) => drawn.split(/[\n |`]+|-- /).filter((word) => word !== "");
      expect(words(text)).toEqual(words(formatTree(tree, FILE)));
    },
  );

  it("goes on under its own branch", () => {
    const word = randomWord();
    const text = formatTree({
      cells: ["boot"],
      children: [{ cells: ["disk", `no ${word} ${word} ${word}`] }, { cells: ["iso", "yes"] }],
    }, { ...FILE, columns: 40 });
    expect(text).toBe(`boot
|-- disk  no ${word} ${word}
|       ${word}
\`-- iso   yes
`);
  });

  it("shows looks on a terminal that has them, on every line, and never across a guide", () => {
    const text = formatTree(tree, { columns: 90, hasColour: true });
    expect(text).toContain(`|-- \x1b[1mamd64  virtualization\x1b[0m\n`);
    expect(text).toContain(`|   |   \x1b[1m${DIGEST}  <- chosen\x1b[0m\n`);
    expect(text).toContain("|   `-- \x1b[2minitramfs  1 MiB\x1b[0m\n");
    const plain = formatTree(tree, { columns: 90, hasColour: false });
    expect(text.replaceAll(/\p{Cc}\[[012]m/gu, "")).toBe(plain);
  });

  it("shows a stranger's words as they are written, not as the terminal would take them", () => {
    const text = formatTree({ cells: ["a"], children: [{ cells: ["x\x1b[2J\n`-- y\u202e", "z"] }] }, {
      columns: 80,
      hasColour: true,
    });
    expect(text).toBe("a\n`-- x\\u001b[2J\\u000a`-- y\\u202e  z\n");
  });
});
