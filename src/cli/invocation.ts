import type { Command } from "commander";
import type { z } from "zod";
import type { AgentContext } from "../agent/agent_context.ts";
import type { ProgressListener } from "../agent/progress.ts";
import { type Environment, loadSettings, type Settings } from "../config/settings.ts";
import { ShimError } from "../errors.ts";
import { describeIssues } from "../image/json_document.ts";
import { givenOptions, globalOptions } from "./global_options.ts";
import { configureLogging, logger } from "./logging.ts";
import { openProgressView } from "./progress_view.ts";
import type { Terminal } from "./terminal.ts";

/** What `main.ts` gives the command line to work with. */
export type Composition = {
  readonly terminal: Terminal;
  readonly environment: Environment;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  readonly openContext: (settings: Settings, note: (message: string) => void) => Promise<AgentContext>;
};

/** One run of one command, after its flags were read. */
export type Invocation = {
  readonly signal: AbortSignal;
  readonly terminal: Terminal;
  readonly environment: Environment;
  readonly settings: Settings;
  readonly openContext: () => Promise<AgentContext>;
  /** Writes the result to stdout: the value as one JSON document, or its text. */
  readonly print: <T>(value: T, formatText: (value: T) => string) => void;
  /** Runs something that takes time, with progress on stderr. */
  readonly withProgress: <T>(body: (onProgress: ProgressListener) => Promise<T>) => Promise<T>;
};

/** Parses a command's options into the type its action wants. */
export function readOptions<T>(command: Command, schema: z.ZodType<T>): T {
  const result = schema.safeParse(givenOptions(command));
  if (result.success) return result.data;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot run "${command.name()}": option ${describeIssues(result.error)}`,
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
    level: global.quiet ? "error" : global.logLevel === "warn" ? "warning" : global.logLevel,
    format: global.logFormat,
  });
  const settings = await loadSettings(global, environment);
  return {
    signal,
    terminal,
    environment,
    settings,
    openContext: async () =>
      await composition.openContext(settings, (message) => logger.warn("{note}", { note: message })),
    print: (value, formatText) =>
      terminal.writeOut(global.output === "json" ? JSON.stringify(value, null, 2) + "\n" : formatText(value)),
    withProgress: async (body) => {
      const view = openProgressView(terminal, { isQuiet: global.quiet, hasBars: global.progress });
      try {
        return await body(view.listen);
      } finally {
        view.close();
      }
    },
  };
}
