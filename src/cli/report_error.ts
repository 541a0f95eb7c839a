import { type ShimError, toShimError } from "../errors.ts";
import { printable } from "./printable.ts";

export type ErrorStyle = { readonly format: "text" | "json"; readonly isDebug: boolean };

/** The error as the user sees it: a line of text, or the JSON document of the contract. Never a stack, except for debug. */
export function formatError(thrown: unknown, style: ErrorStyle): string {
  const error = toShimError(thrown);
  const trace = style.isDebug ? formatTrace(error) : "";
  if (style.format === "json") {
    const { code, message, retryable, details } = error;
    return trace + printable(JSON.stringify({ error: { code, message, retryable, details } })) + "\n";
  }
  const remedy = error.details.remedy ? ` (${error.details.remedy})` : "";
  return `${trace}bootshim: ${error.code}: ${printable(error.message + remedy)}\n`;
}

function formatTrace(error: ShimError): string {
  const lines: string[] = [];
  for (let each: unknown = error; each instanceof Error; each = each.cause) {
    lines.push((each.stack ?? each.message).split("\n").map(printable).join("\n"));
  }
  return lines.join("\ncaused by: ") + "\n";
}
