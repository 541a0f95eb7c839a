/**
 * @module main: argv and environment in, exit code out. The only file that reads the process, and the one that joins
 * the parts. Imports everything, is imported by nothing.
 */
import { homedir } from "node:os";
import { writeSync } from "node:fs";
import process from "node:process";
import type { AgentContext } from "./agent/agent_context.ts";
import { runProgram } from "./cli/program.ts";
import type { Terminal } from "./cli/terminal.ts";
import type { Settings } from "./config/settings.ts";
import { ContentStore } from "./content/content_store.ts";
import { ShimError } from "./errors.ts";
import { qemuGroupId } from "./host/qemu_group.ts";
import { architectureOf } from "./image/platform.ts";
import { MachineStore } from "./machine/machine_store.ts";

const isRoot = process.geteuid?.() === 0;

const terminal: Terminal = {
  writeOut: (text) => writeAll(1, text),
  writeError: (text) => writeAll(2, text),
  isErrorTerminal: process.stderr.isTTY === true,
  isInputTerminal: process.stdin.isTTY === true,
  hasColor: process.stderr.isTTY === true && !process.env["NO_COLOR"],
};

/** Whole and in order, whatever the reader's pace; a reader who went away (`| head`) ends us, as it ends any filter. */
function writeAll(fd: number, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(fd, bytes));
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EAGAIN") continue;
      if (code === "EPIPE") process.exit(141);
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
  return {
    content: await ContentStore.open({ rootDirectory, groupId, onWarning: note }),
    machines: await MachineStore.open({ rootDirectory, groupId }),
    rootDirectory,
    insecureRegistries: settings.insecureRegistries,
    libvirtUri: settings.libvirtUri,
    hostArchitecture,
    isRoot,
    configHome: process.env["XDG_CONFIG_HOME"] ?? `${homedir()}/.config`,
    note,
  };
}

const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => stop.abort(new ShimError("CANCELLED", `Cannot finish: ${name} was received`)));
}

process.exitCode = await runProgram(process.argv.slice(2), {
  terminal,
  environment: { isRoot, homeDirectory: homedir(), variables: process.env, workingDirectory: process.cwd() },
  signal: stop.signal,
  openContext,
});
// Signal listeners and idle connections must not keep a finished command alive.
process.exit();
