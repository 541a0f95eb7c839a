/**
 * @module main: argv and environment in, exit code out. The only file that reads the process, and the one that joins
 * the parts. Imports everything, is imported by nothing.
 */
import { homedir } from "node:os";
import { writeSync } from "node:fs";
import process from "node:process";
import type { AgentContext } from "./agent/agent_context.ts";
import { cacheUsers } from "./agent/cache_users.ts";
import { runProgram } from "./cli/program.ts";
import { ReaderGone, type Terminal } from "./cli/terminal.ts";
import type { Settings } from "./config/settings.ts";
import { BlobAudit } from "./content/blob_audit.ts";
import { Collector } from "./content/collector.ts";
import { ContentStore } from "./content/content_store.ts";
import { DerivedDisks } from "./content/derived_disks.ts";
import { KnownAcceleration } from "./agent/known_acceleration.ts";
import { KnownFindings } from "./agent/known_findings.ts";
import { Leases } from "./content/lease.ts";
import { ShimError } from "./errors.ts";
import { qemuGroupId } from "./host/qemu_group.ts";
import { architectureOf } from "./image/platform.ts";
import { MachineStore } from "./machine/machine_store.ts";
import { Registries } from "./registry/registries.ts";

const isRoot = process.geteuid?.() === 0;

const terminal: Terminal = {
  writeOut: (text) => writeAll(1, text),
  writeError: (text) => {
    try {
      writeAll(2, text);
    } catch {
      // Closed, or a terminal that is gone: there is nobody left to tell.
    }
  },
  // A terminal that does not tell its width has 0.
  outColumns: process.stdout.isTTY === true ? process.stdout.columns || null : null,
  hasOutColour: process.stdout.isTTY === true && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb",
  isErrorTerminal: process.stderr.isTTY === true,
  isInputTerminal: process.stdin.isTTY === true,
};

/** Whole and in order, whatever the reader's pace. */
function writeAll(fd: number, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(fd, bytes));
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EAGAIN") continue;
      // Not the end here: a guest has to be ended first, and its machine removed.
      if (code === "EPIPE") throw new ReaderGone("Cannot write: the reader has gone", { cause: error });
      throw error;
    }
  }
}

async function openContext(settings: Settings, note: (message: string) => void): Promise<AgentContext> {
  const hostArchitecture = architectureOf(process.arch);
  if (!hostArchitecture) {
    throw new ShimError(
      "HYPERVISOR_UNAVAILABLE",
      `Cannot prepare machines on "${process.arch}": must be amd64 or arm64`,
    );
  }
  const { rootDirectory } = settings;
  const groupId = await qemuGroupId();
  const content = await ContentStore.open({ rootDirectory, groupId, onWarning: note });
  const machines = await MachineStore.open({ rootDirectory, groupId });
  return {
    content,
    leases: new Leases({ rootDirectory }),
    findings: new KnownFindings(),
    acceleration: new KnownAcceleration(),
    audit: new BlobAudit({ rootDirectory }),
    collector: new Collector({ rootDirectory, users: () => cacheUsers(machines), onWarning: note }),
    cacheBudget: settings.cacheBudget,
    derived: new DerivedDisks({ rootDirectory, groupId, content }),
    machines,
    rootDirectory,
    registries: new Registries({ ...settings.registries, onWarning: note }),
    imageLimits: settings.imageLimits,
    libvirtUri: settings.libvirtUri,
    hostArchitecture,
    isRoot,
    configHome: settings.configHome,
    note,
  };
}

/** One Ctrl-C may arrive as several signals; only what comes later than this is asking again. */
const PATIENCE_MS = 1000;
const stop = new AbortController();
let stoppedMs = 0;
/** What reads its settings anew when it is asked to; nobody: then a terminal that is gone is the end. */
let reload: (() => void) | undefined;
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(name, () => {
    if (name === "SIGHUP" && reload) return reload();
    // Asked again after a while: whoever asks will not wait for a call that hangs. QEMU and qemu-img end with us. To end is
    // what a service was asked for, and what it has under way can be resumed; a command did not do what it was to do.
    if (stop.signal.aborted && performance.now() - stoppedMs > PATIENCE_MS) process.exit(reload ? 0 : 130);
    if (!stop.signal.aborted) stoppedMs = performance.now();
    stop.abort(new ShimError("CANCELLED", `Cannot finish: ${name} was received`));
  });
}

process.exitCode = await runProgram(process.argv.slice(2), {
  terminal,
  environment: {
    isRoot,
    homeDirectory: homedir(),
    variables: process.env,
    workingDirectory: process.cwd(),
    processId: process.pid,
  },
  signal: stop.signal,
  onHangup: (listener) => reload = listener,
  openContext,
});
// Signal listeners and idle connections must not keep a finished command alive.
process.exit();
