import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Progress } from "../../../src/agent/progress.ts";
import { openProgressView } from "../../../src/cli/progress_view.ts";
import { randomBlob } from "../../support/blobs.ts";
import { type FakeTerminal, fakeTerminal } from "../../support/fake_terminal.ts";

const TOTAL = 100 * 2 ** 20;
const { digest } = randomBlob(8).descriptor;
const SHORT = digest.slice(0, "sha256:".length + 12);

function pulling(doneBytes: number, totalBytes = TOTAL): Progress {
  return {
    phase: "pulling",
    doneBytes,
    totalBytes,
    layers: [{ role: "kernel", digest, doneBytes, totalBytes }],
  };
}

const PREPARING: Progress = { phase: "preparing", doneBytes: 0, totalBytes: 0, layers: [] };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("openProgressView without a terminal", () => {
  const open = (terminal: FakeTerminal, hasBars = true) =>
    openProgressView(terminal, { isQuiet: false, hasBars });

  it("prints at most one plain line in 5 s, however often it is told", async () => {
    const terminal = fakeTerminal();
    const view = await open(terminal);
    // A minute, told ten times a second.
    for (let tick = 1; tick <= 600; tick++) {
      vi.advanceTimersByTime(100);
      view.listen(pulling(TOTAL * tick / 600));
    }
    view.close();
    const lines = terminal.written.error.split("\n").slice(0, -1);
    expect(lines).toHaveLength(12);
    expect(lines[0]).toBe(`pulling 8% 8.33 MiB of 100 MiB, 1.67 MiB/s, 55 s left (kernel ${SHORT})`);
    expect(lines.at(-1)).toBe(`pulling 100% 100 MiB of 100 MiB, 1.67 MiB/s, 0 s left (kernel ${SHORT})`);
    expect(terminal.written.error).not.toMatch(/(?!\n)\p{Cc}/u);
  });

  it("prints one line for a short transfer, at its end", async () => {
    const terminal = fakeTerminal();
    const view = await open(terminal);
    vi.advanceTimersByTime(1000);
    view.listen(pulling(TOTAL));
    view.listen(PREPARING);
    expect(terminal.written.error).toBe("");
    view.close();
    expect(terminal.written.error).toBe(
      `pulling 100% 100 MiB of 100 MiB, 100 MiB/s, 0 s left (kernel ${SHORT})\n`,
    );
  });

  it("says nothing where nothing is transferred, and never divides by nothing", async () => {
    const terminal = fakeTerminal();
    const view = await open(terminal);
    view.listen({ ...PREPARING, phase: "resolving" });
    view.listen(PREPARING);
    view.close();
    expect(terminal.written.error).toBe("");
    const other = await open(terminal);
    other.listen(pulling(0, 0));
    other.close();
    expect(terminal.written.error).toBe("");
  });

  it("tells what is waited for, and never ends at nothing", async () => {
    const terminal = fakeTerminal();
    const view = await open(terminal);
    vi.advanceTimersByTime(5000);
    const wait = { code: "REGISTRY_RATE_LIMITED", delayMs: 6100 } as const;
    const [layer] = pulling(TOTAL / 2).layers;
    if (!layer) throw new Error("there is a layer");
    view.listen({ ...pulling(TOTAL / 2), bytesPerSecond: 2 ** 20, layers: [{ ...layer, wait }] });
    view.close();
    expect(terminal.written.error).toBe(
      `pulling 50% 50 MiB of 100 MiB, 1 MiB/s, 50 s left (kernel ${SHORT} retrying in 7 s: rate limited)\n`,
    );
    const failing = fakeTerminal();
    const other = await open(failing);
    other.listen(pulling(0));
    other.close();
    expect(failing.written.error).toBe("");
  });

  it("writes nothing after it was closed, and closes once", async () => {
    const terminal = fakeTerminal();
    const view = await open(terminal);
    view.listen(pulling(1));
    view.close();
    const { error } = terminal.written;
    view.close();
    vi.advanceTimersByTime(60_000);
    view.listen(pulling(2));
    view.close();
    expect(terminal.written.error).toBe(error);
  });

  it("prints plain lines on a terminal, too, when bars are not wanted", async () => {
    const terminal = fakeTerminal({ isErrorTerminal: true });
    const view = await open(terminal, false);
    vi.advanceTimersByTime(5000);
    view.listen(pulling(TOTAL / 2));
    expect(terminal.written.error).toMatch(/^pulling 50% \P{Cc}*\n$/u);
    view.close();
  });
});

describe("openProgressView on a terminal", () => {
  const CURSOR_BACK = "\x1b[?25h";
  const WRAP_BACK = "\x1b[?7h";
  const open = async () => {
    const terminal = fakeTerminal({ isErrorTerminal: true });
    return { terminal, view: await openProgressView(terminal, { isQuiet: false, hasBars: true }) };
  };

  it("draws a bar for each layer and gives the terminal back", async () => {
    const { terminal, view } = await open();
    view.listen(pulling(0));
    vi.advanceTimersByTime(1000);
    view.listen(pulling(TOTAL / 2));
    vi.advanceTimersByTime(1000);
    expect(terminal.written.error).toContain(
      "kernel    [============            ] 50% 50 MiB/100 MiB 50 MiB/s 1 s",
    );
    view.close();
    expect(terminal.written.error).toContain(CURSOR_BACK);
    expect(terminal.written.error).toContain(WRAP_BACK);
    expect(terminal.written.error.lastIndexOf("\x1b[?25l")).toBeLessThan(
      terminal.written.error.indexOf(CURSOR_BACK),
    );
    expect(terminal.written.error.endsWith("\n")).toBe(true);
    // Colours would have to obey NO_COLOR; there are none.
    expect(terminal.written.error).not.toMatch(/\p{Cc}\[[0-9;]*m/u);
  });

  it("writes nothing after it was closed: the terminal may be the guest's by then", async () => {
    const { terminal, view } = await open();
    view.listen(pulling(TOTAL));
    view.close();
    const { error } = terminal.written;
    view.close();
    view.listen(pulling(TOTAL));
    vi.advanceTimersByTime(5000);
    expect(terminal.written.error).toBe(error);
  });

  it("leaves the terminal alone where nothing is transferred", async () => {
    const { terminal, view } = await open();
    view.listen({ ...PREPARING, phase: "resolving" });
    view.listen(PREPARING);
    view.close();
    expect(terminal.written.error).toBe("");
  });
});

describe("openProgressView when quiet", () => {
  it.each([true, false])("says nothing at all, terminal or not: %s", async (isErrorTerminal) => {
    const terminal = fakeTerminal({ isErrorTerminal });
    const view = await openProgressView(terminal, { isQuiet: true, hasBars: true });
    vi.advanceTimersByTime(60_000);
    view.listen(pulling(TOTAL));
    view.close();
    expect(terminal.written).toEqual({ out: "", error: "" });
  });
});
