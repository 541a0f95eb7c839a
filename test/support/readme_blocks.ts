/** Reads the examples of a Markdown file, so that a test can run them and compare what comes out. */

export type CodeBlock = {
  readonly language: string;
  readonly lines: readonly string[];
  /** Of the first line inside, counted from 1. */
  readonly lineNumber: number;
};

/** A command of a console block, and the lines that it is said to print. */
export type ConsoleStep = {
  readonly command: string;
  readonly expected: readonly string[];
  readonly lineNumber: number;
};

/** The fenced blocks, in order. @throws {Error} for a fence that is not closed */
export function codeBlocks(markdown: string): CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let open: { language: string; lines: string[]; lineNumber: number } | undefined;
  for (const [index, line] of markdown.split("\n").entries()) {
    if (open && line === "```") {
      blocks.push(open);
      open = undefined;
    } else if (open) {
      open.lines.push(line);
    } else if (line.startsWith("```")) {
      open = { language: line.slice(3).trim(), lines: [], lineNumber: index + 2 };
    }
  }
  if (open) throw new Error(`the block at line ${open.lineNumber} is not closed`);
  return blocks;
}

/** The commands of a console block. @throws {Error} for output that belongs to no command */
export function consoleSteps({ lines, lineNumber }: CodeBlock): ConsoleStep[] {
  const steps: { command: string; expected: string[]; lineNumber: number }[] = [];
  let isContinued = false;
  for (const [index, line] of lines.entries()) {
    const step = steps.at(-1);
    if (isContinued && step) {
      step.command += `\n${line}`;
    } else if (line.startsWith("$ ")) {
      steps.push({ command: line.slice(2), expected: [], lineNumber: lineNumber + index });
    } else if (step) {
      step.expected.push(line);
    } else {
      throw new Error(`line ${lineNumber + index} is the output of no command`);
    }
    isContinued = line.endsWith(" \\") && (isContinued || line.startsWith("$ "));
  }
  return steps;
}

/**
 * What the expected lines match. `…` is any text within a line; alone on a line it is any number of lines, none among
 * them. Where a column is padded by two blanks or more, any such padding will do: what stands before it may have another
 * length (a port has).
 */
export function outputPattern(expected: readonly string[]): RegExp {
  const patterns = expected.map((line) =>
    line.trim() === "…" ? "(?:[^\\n]*\\n)*?" : `${linePattern(line.trimEnd())}\\n`
  );
  return new RegExp(`^${patterns.join("")}$`, "u");
}

function linePattern(line: string): string {
  return line.replace(/[\\^$.*+?()[\]{}|/]/gu, "\\$&").replaceAll("…", "[^\\n]*").replace(
    /(?<=\S) {2,}/gu,
    " {2,}",
  );
}

/** What stands in for progress bars where there is no terminal. */
const PROGRESS_LINE = /^(pulling|pushing|exporting|importing) \d+% .* left \(.*\)\n/gmu;

/** A program's output without carriage returns, blanks at the ends of lines, and progress. */
export function visibleText(output: string): string {
  const text = output.replaceAll(/[ \t\r]+$/gmu, "").replaceAll(PROGRESS_LINE, "");
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}
