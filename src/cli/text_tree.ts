import { printable } from "./printable.ts";

/** A line of a picture, and what hangs below it. */
export type TreeNode = {
  /** Cells of equal place are aligned among brothers. Anybody's words may stand in them. */
  readonly cells: readonly string[];
  readonly children?: readonly TreeNode[];
  /** Said by more than the look alone: not every terminal has looks. */
  readonly look?: Look | undefined;
};

export type Look = "strong" | "faint";

export type TreeOptions = {
  /** Null where lines may be of any length: a file, a pipe. */
  readonly columns: number | null;
  readonly hasColour: boolean;
};

const GAP = "  ";
/** A terminal that is narrower gets lines of this width: folding words one by one would be no help. */
const MIN_COLUMNS = 32;
const ESCAPES: Readonly<Record<Look, string>> = { strong: "\x1b[1m", faint: "\x1b[2m" };
const PLAIN = "\x1b[0m";

/**
 * Draws a tree in plain characters, which every terminal, locale and log can show. Nothing is ever left out: what is
 * too long for the terminal goes on in the next line under its own branch, broken between words only, so that a digest
 * can still be copied.
 */
export function formatTree(root: TreeNode, options: TreeOptions): string {
  return draw(root, { first: "", rest: "", widths: [] }, options).join("\n") + "\n";
}

/** What stands left of a node's first line and of all below it, and the widths of its cells. */
type Place = { readonly first: string; readonly rest: string; readonly widths: readonly number[] };

function draw(node: TreeNode, { first, rest, widths }: Place, options: TreeOptions): string[] {
  const children = node.children ?? [];
  const below = `${rest}${children.length > 0 ? "|   " : "    "}`;
  const cells = node.cells.map((cell, place) => printable(cell).padEnd(widths[place] ?? 0));
  const [head = "", ...more] = fold(cells.join(GAP).trimEnd(), {
    firstWidth: widthOf(options, first),
    restWidth: widthOf(options, below),
  });
  const lines = [first + emphasise(head, node.look, options)];
  for (const line of more) lines.push(below + emphasise(line, node.look, options));
  const childWidths = widthsOf(children);
  for (const [place, child] of children.entries()) {
    const isLast = place === children.length - 1;
    lines.push(...draw(child, {
      first: `${rest}${isLast ? "`-- " : "|-- "}`,
      rest: `${rest}${isLast ? "    " : "|   "}`,
      widths: childWidths,
    }, options));
  }
  return lines;
}

function widthOf({ columns }: TreeOptions, guide: string): number {
  return columns === null ? Infinity : Math.max(columns, MIN_COLUMNS) - guide.length;
}

function widthsOf(nodes: readonly TreeNode[]): number[] {
  const widths: number[] = [];
  for (const { cells } of nodes) {
    for (const [place, cell] of cells.entries()) {
      widths[place] = Math.max(widths[place] ?? 0, printable(cell).length);
    }
  }
  return widths;
}

/** Breaks a line at blanks. A word that is longer than a line stays whole. */
function fold(
  text: string,
  { firstWidth, restWidth }: { readonly firstWidth: number; readonly restWidth: number },
): string[] {
  if (text.length <= firstWidth) return [text];
  const lines: string[] = [];
  let line = "";
  for (const [, blanks = "", word = ""] of text.matchAll(/( *)([^ ]+)/g)) {
    const width = lines.length === 0 ? firstWidth : restWidth;
    if (line !== "" && line.length + blanks.length + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line += blanks + word;
    }
  }
  return [...lines, line];
}

function emphasise(text: string, look: Look | undefined, { hasColour }: TreeOptions): string {
  return look === undefined || !hasColour ? text : `${ESCAPES[look]}${text}${PLAIN}`;
}
