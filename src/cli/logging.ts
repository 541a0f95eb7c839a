import { configure, getJsonLinesFormatter, getLogger, type LogLevel, type LogRecord } from "@logtape/logtape";
import { printable } from "./printable.ts";
import type { Terminal } from "./terminal.ts";

export const LOG_LEVELS = [
  "trace",
  "debug",
  "info",
  "warning",
  "error",
  "fatal",
] as const satisfies readonly LogLevel[];

export type LogSettings = { readonly level: LogLevel; readonly format: "text" | "json" };

/** Logs go to stderr, one record a line, as text for people or JSON lines for machines. */
export async function configureLogging(terminal: Terminal, settings: LogSettings): Promise<void> {
  const format = settings.format === "json" ? formatJson : formatText;
  await configure({
    reset: true,
    sinks: { stderr: (record) => terminal.writeError(format(record)) },
    loggers: [
      { category: ["bootshim"], lowestLevel: settings.level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
    ],
  });
}

const jsonLine = getJsonLinesFormatter();

/** Without its line break the record is one line of JSON. */
function formatJson(record: LogRecord): string {
  return `${printable(jsonLine(record).trimEnd())}\n`;
}

function formatText(record: LogRecord): string {
  const text = record.message.map((part) => typeof part === "string" ? part : JSON.stringify(part)).join("");
  return `${new Date(record.timestamp).toISOString()} ${record.level} ${printable(text)}\n`;
}

export const logger = getLogger(["bootshim"]);
