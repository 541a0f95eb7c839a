import { resolve } from "node:path";
import type { LogLevel } from "@logtape/logtape";
import type { Command } from "commander";
import type { z } from "zod";
import type { AgentContext } from "../agent/agent_context.ts";
import type { ProgressListener } from "../agent/progress.ts";
import type { BootshimClient } from "../api/client.ts";
import { type Environment, loadSettings, type Settings } from "../config/settings.ts";
import { ShimError } from "../errors.ts";
import { describeIssues } from "../image/json_document.ts";
import { givenOptions, type GlobalOptions, globalOptions } from "./global_options.ts";
import { configureLogging, logger } from "./logging.ts";
import { openProgressView, type ProgressView } from "./progress_view.ts";
import type { Terminal } from "./terminal.ts";

/** What `main.ts` gives the command line to work with. */
export type Composition = {
  readonly terminal: Terminal;
  readonly environment: Environment;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Whoever listens is told of SIGHUP, which then ends nothing. */
  readonly onHangup: (listener: () => void) => void;
  readonly openContext: (settings: Settings, note: (message: string) => void) => Promise<AgentContext>;
};

/** One run of one command, after its flags were read. */
export type Invocation = {
  readonly signal: AbortSignal;
  readonly terminal: Terminal;
  readonly environment: Environment;
  readonly settings: Settings;
  /** With the settings it was begun with, or others. */
  readonly openContext: (settings?: Settings) => Promise<AgentContext>;
  /** Reads the configuration again. @throws {ShimError} CONFIG_INVALID; then nothing has changed */
  readonly readSettings: () => Promise<Settings>;
  /** The service that was named; then what it does is asked of it. Null: the command does its work itself. */
  readonly service: BootshimClient | null;
  /** Writes the result to stdout: the value as one JSON document, or its text. */
  readonly print: <T>(value: T, formatText: (value: T) => string) => void;
  /** Shows progress on stderr until closed. */
  readonly openProgress: () => Promise<ProgressView>;
  /** Runs something that takes time, with progress on stderr. */
  readonly withProgress: <T>(body: (onProgress: ProgressListener) => Promise<T>) => Promise<T>;
};

/** Commander knows `--disk-size` as `diskSize`. */
function asTyped(issues: string): string {
  return issues.replace(/^\w+/, (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`));
}

/** Parses a command's options into the type its action wants. */
export function readOptions<T>(command: Command, schema: z.ZodType<T>): T {
  const result = schema.safeParse(givenOptions(command));
  if (result.success) return result.data;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot run "${command.name()}": option ${asTyped(describeIssues(result.error))}`,
    {
      details: { remedy: `see: bootshim ${command.name()} --help` },
    },
  );
}

/** Reads the global flags, sets up logging, and gives the command what it works with. */
export async function beginInvocation(command: Command, composition: Composition): Promise<Invocation> {
  const { terminal, environment, signal } = composition;
  const global = readOptions(command, globalOptions);
  await configureLogging(terminal, {
    level: logLevelOf(global),
    format: global.logFormat,
  });
  const socketPath = global.socket ?? (environment.variables["BOOTSHIM_SOCKET"] || undefined);
  const settings = await loadSettings(global, environment);
  const invocation: Invocation = {
    signal,
    terminal,
    environment,
    settings,
    readSettings: () => loadSettings(global, environment),
    service: socketPath === undefined ? null : new (await import("../api/client.ts")).BootshimClient({
      socketPath: resolve(environment.workingDirectory, socketPath),
    }),
    openContext: async (given = settings) =>
      await composition.openContext(given, (message) => logger.warn("{note}", { note: message })),
    print: (value, formatText) =>
      terminal.writeOut(global.output === "json" ? JSON.stringify(value, null, 2) + "\n" : formatText(value)),
    // A program that reads JSON may read stderr for the error's document: plain lines would be in its way.
    openProgress: () =>
      openProgressView(terminal, {
        isQuiet: global.quiet || (global.output === "json" && !terminal.isErrorTerminal),
        hasBars: global.progress,
      }),
    withProgress: async (body) => {
      const view = await invocation.openProgress();
      try {
        return await body(view.listen);
      } finally {
        view.close();
      }
    },
  };
  return invocation;
}

function logLevelOf({ quiet, logLevel, output }: GlobalOptions): LogLevel {
  if (logLevel !== undefined) return logLevel === "warn" ? "warning" : logLevel;
  return quiet || output === "json" ? "error" : "warning";
}
