import { join } from "node:path";
import type { Composition } from "../../src/cli/invocation.ts";
import { runProgram } from "../../src/cli/program.ts";
import { Registries } from "../../src/registry/registries.ts";
import { openAgent } from "./agent_kit.ts";
import { fakeTerminal } from "./fake_terminal.ts";

export type ProgramEnd = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/**
 * Runs the command line in this process, with real stores under `directory` (`root` in it) and no user's configuration;
 * it is the working directory and the home, too.
 */
export async function runTestProgram(
  argv: readonly string[],
  { directory, variables = {}, ...changes }:
    & { directory: string; variables?: Readonly<Record<string, string>> }
    & Partial<Composition>,
): Promise<ProgramEnd> {
  const terminal = fakeTerminal();
  const exitCode = await runProgram(argv, {
    terminal,
    environment: {
      isRoot: false,
      homeDirectory: directory,
      variables: { BOOTSHIM_ROOT: join(directory, "root"), ...variables },
      workingDirectory: directory,
      processId: 1,
    },
    signal: new AbortController().signal,
    onHangup: () => {},
    openContext: ({ rootDirectory, registries, imageLimits, libvirtUri }, note) =>
      openAgent(rootDirectory, {
        registries: new Registries({ ...registries, onWarning: note }),
        imageLimits,
        libvirtUri,
        note,
      }),
    ...changes,
  });
  return { exitCode, stdout: terminal.written.out, stderr: terminal.written.error };
}
