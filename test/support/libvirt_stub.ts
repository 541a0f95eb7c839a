import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { fileURLToPath } from "node:url";
import koffi from "koffi";

const SOURCE = fileURLToPath(new URL("./libvirt_stub.c", import.meta.url));
const FOLDER = fileURLToPath(new URL("../../.cache/libvirt-stub/", import.meta.url));

/** The ways a function of the stub can misbehave, as its C source numbers them. */
const MODES = { fail: 1, lost: 2, hang: 3, silent: 4, big: 5, latin: 6, strange: 7 } as const;

export type Misbehaviour = keyof typeof MODES;

/** The stub in this OS process; worker threads that load it share its memory. */
export type LibvirtStub = {
  readonly library: string;
  /** Lets the next calls of a C function misbehave; all of them without a count. */
  arm(symbol: string, misbehaviour: Misbehaviour, count?: number): void;
  /** Forgets everything. */
  reset(): void;
  count(
    what: "connections" | "domains" | "strings" | "bad" | "foreign" | "starts" | "callbacks" | "calls",
  ): number;
  /** Events for the first domain, delivered by the next look of the event loop. */
  emit(event: number, detail: number): void;
  /** Tells the connection's end, as a daemon that goes does. */
  close(reason: number): void;
};

/**
 * The stub as a shared library, built by gcc when its source has changed; a machine without gcc fails the test.
 *
 * @param without a function of the library to leave out
 */
export function buildLibvirtStub(without: string | null = null): string {
  const flags = ["-shared", "-fPIC", "-O1", "-Wall"];
  const source = readFileSync(SOURCE, "utf8");
  const text = without === null ? source : source.replaceAll(`${without}(`, `${without}_not(`);
  const digest = createHash("sha256").update(flags.join()).update(text).digest("hex").slice(0, 16);
  const path = `${FOLDER}libvirt-${digest}.so`;
  if (existsSync(path)) return path;
  mkdirSync(FOLDER, { recursive: true });
  const fresh = `${path}.${process.pid}`;
  execFileSync("gcc", [...flags, "-x", "c", "-", "-o", fresh], { input: text, timeout: 60_000 });
  renameSync(fresh, path);
  return path;
}

/** Builds the stub, loads it into this OS process, and has it forget everything. */
export function loadLibvirtStub(): LibvirtStub {
  const library = buildLibvirtStub();
  const loaded = koffi.load(library);
  const arm = loaded.func("void stub_arm(str, int, int)");
  const reset = loaded.func("void stub_reset()");
  reset();
  return {
    library,
    arm: (symbol, misbehaviour, count = -1) => arm(symbol, MODES[misbehaviour], count),
    reset,
    count: loaded.func("int stub_count(str)"),
    emit: loaded.func("void stub_emit(int, int)"),
    close: loaded.func("void stub_close(int)"),
  };
}
