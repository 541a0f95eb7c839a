import type { z } from "zod";
import type { ShimError } from "../errors.ts";
import type { FileSystem, SmallFile } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { describeIssues } from "../image/json_document.ts";

export type LayoutFileOptions<T> = {
  readonly schema: z.ZodType<T>;
  readonly maxBytes: number;
  /**
   * Makes the error for a file that is no such document. The text in it never quotes the file: it may be any
   * file.
   */
  readonly invalid: (why: string, cause?: unknown) => ShimError;
  readonly fileSystem: FileSystem;
};

/**
 * Reads one of a layout's JSON files, following no link.
 *
 * @returns undefined when there is none
 * @throws {ShimError} whatever `invalid` makes; errno errors pass
 */
export async function readLayoutFile<T>(path: string, options: LayoutFileOptions<T>): Promise<T | undefined> {
  const { schema, maxBytes, invalid, fileSystem } = options;
  let found: SmallFile;
  try {
    found = await fileSystem.readSmall(path, maxBytes);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    if (errnoOf(error) === "ELOOP") throw invalid("it is a symbolic link, must be a regular file", error);
    throw error;
  }
  const { bytes, status: { kind, sizeBytes } } = found;
  if (bytes) return parseLayoutJson(bytes, { schema, invalid });
  if (kind === "file") throw invalid(`it has ${sizeBytes} bytes, limit is ${maxBytes} bytes`);
  throw invalid(`it is a ${kind === "other" ? "special file" : kind}, must be a regular file`);
}

/** @throws {ShimError} whatever `invalid` makes */
export function parseLayoutJson<T>(
  bytes: Uint8Array,
  { schema, invalid }: Pick<LayoutFileOptions<T>, "schema" | "invalid">,
): T {
  const result = schema.safeParse(parseJson(bytes, invalid));
  if (result.success) return result.data;
  throw invalid(describeIssues(result.error));
}

function parseJson(bytes: Uint8Array, invalid: LayoutFileOptions<unknown>["invalid"]): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    // The parser's own words quote what it read, which may be a file that the caller must not see.
    throw invalid("it is not a UTF-8 JSON document");
  }
}
