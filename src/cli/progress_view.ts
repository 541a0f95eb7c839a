import { Writable } from "node:stream";
import type { MultiBar, SingleBar } from "cli-progress";
import prettyBytes from "pretty-bytes";
import type { Pace, Progress, ProgressListener } from "../agent/progress.ts";
import type { ErrorCode } from "../errors.ts";
import { shortDigest } from "../image/digest.ts";
import type { SourceWait } from "../image/image_source.ts";
import type { Terminal } from "./terminal.ts";

/** Without a terminal, at most one plain line in this time. */
const PLAIN_INTERVAL_MS = 5000;

/** Phases in which bytes move; the others pass too quickly to be told. */
const TRANSFERS: ReadonlySet<Progress["phase"]> = new Set([
  "pulling",
  "pushing",
  "exporting",
  "importing",
  "checking",
]);

export type ProgressView = { readonly listen: ProgressListener; readonly close: () => void };

/**
 * Bars on a terminal, plain lines elsewhere, nothing when quiet. `close` must be called whatever happens; after its first
 * call nothing is written any more.
 */
export async function openProgressView(
  terminal: Terminal,
  options: { isQuiet: boolean; hasBars: boolean },
): Promise<ProgressView> {
  if (options.isQuiet) return { listen: () => {}, close: () => {} };
  return terminal.isErrorTerminal && options.hasBars ? await openBars(terminal) : openPlainLines(terminal);
}

function bytes(count: number): string {
  return prettyBytes(count, { binary: true });
}

function rate(doneBytes: number, startedMs: number): number {
  return doneBytes / Math.max(0.001, (performance.now() - startedMs) / 1000);
}

type Moving = Pace & { readonly doneBytes: number; readonly totalBytes: number };

/** What the last seconds brought; the average from the start where that is not known. */
function rateOf({ bytesPerSecond, doneBytes }: Moving, startedMs: number): number {
  return bytesPerSecond ?? rate(doneBytes, startedMs);
}

function remaining(progress: Moving, startedMs: number): string {
  const seconds = (progress.totalBytes - progress.doneBytes) / Math.max(1, rateOf(progress, startedMs));
  return progress.doneBytes === 0 ? "--" : `${Math.ceil(seconds)} s`;
}

const REASONS: Partial<Record<ErrorCode, string>> = {
  REGISTRY_RATE_LIMITED: "rate limited",
  REGISTRY_TIMEOUT: "no answer in time",
  REGISTRY_UNAVAILABLE: "connection lost",
  CONTENT_SIZE_MISMATCH: "connection lost",
};

function describeWait({ code, delayMs }: SourceWait): string {
  return `retrying in ${Math.ceil(delayMs / 1000)} s: ${REASONS[code] ?? code}`;
}

function makeMultiBar(Bars: typeof MultiBar, terminal: Terminal): MultiBar {
  const stream = new Writable({
    write: (chunk, _encoding, done) => {
      terminal.writeError(String(chunk));
      done();
    },
  });
  return new Bars({
    stream: Object.assign(stream, { isTTY: true }),
    format: "{name} [{bar}] {percentage}% {done}/{size} {rate}/s {left}",
    // Signals are the program's: it closes the view on every way out.
    gracefulExit: false,
    hideCursor: true,
    stopOnComplete: false,
    clearOnComplete: false,
    barsize: 24,
    fps: 8,
    linewrap: false,
    barCompleteChar: "=",
    barIncompleteChar: " ",
  });
}

async function openBars(terminal: Terminal): Promise<ProgressView> {
  // Some 20 ms of a start, which only those who see bars pay.
  const { MultiBar: Bars } = await import("cli-progress");
  const startedMs = performance.now();
  const bars = new Map<string, SingleBar>();
  // Made with the first bar: where nothing is transferred the terminal is left alone.
  let view: MultiBar | undefined;
  let isClosed = false;
  return {
    listen: (progress) => {
      if (isClosed) return;
      for (const layer of progress.layers) {
        view ??= makeMultiBar(Bars, terminal);
        const name = layer.role.padEnd(9);
        const payload = {
          name,
          done: bytes(layer.doneBytes),
          size: bytes(layer.totalBytes),
          rate: bytes(rateOf(layer, startedMs)),
          left: layer.doneBytes === layer.totalBytes
            ? "done"
            : layer.wait
            ? describeWait(layer.wait)
            : remaining(layer, startedMs),
        };
        const key = `${layer.role} ${layer.digest}`;
        const bar = bars.get(key) ?? view.create(layer.totalBytes, 0, payload);
        bars.set(key, bar);
        bar.update(layer.doneBytes, payload);
      }
    },
    close: () => {
      if (!isClosed) view?.stop();
      isClosed = true;
    },
  };
}

function openPlainLines(terminal: Terminal): ProgressView {
  const startedMs = performance.now();
  let lastMs = startedMs;
  let hasLine = false;
  let isClosed = false;
  let last: Progress | undefined;
  const print = (progress: Progress) => {
    const percent = Math.floor(100 * progress.doneBytes / Math.max(1, progress.totalBytes));
    const speed = `${bytes(rateOf(progress, startedMs))}/s`;
    const layers = progress.layers.map((layer) =>
      `${layer.role} ${shortDigest(layer.digest)}${layer.wait ? ` ${describeWait(layer.wait)}` : ""}`
    ).join(", ");
    terminal.writeError(
      `${progress.phase} ${percent}% ${bytes(progress.doneBytes)} of ${
        bytes(progress.totalBytes)
      }, ${speed}, ${remaining(progress, startedMs)} left (${layers})\n`,
    );
    lastMs = performance.now();
    hasLine = true;
  };
  return {
    listen: (progress) => {
      if (isClosed || !TRANSFERS.has(progress.phase)) return;
      last = progress;
      if (performance.now() - lastMs >= PLAIN_INTERVAL_MS) print(progress);
    },
    // A short transfer gets one line, at its end; one that brought nothing gets none.
    close: () => {
      if (last && !hasLine && last.doneBytes > 0) print(last);
      isClosed = true;
    },
  };
}
