import { z } from "zod";
import { ShimError } from "../errors.ts";
import { parseDigest } from "../image/digest.ts";
import { describeIssues } from "../image/json_document.ts";
import { isMachineId, machineUuid } from "./machine_id.ts";

/** A record of another version was written by another bootshim, and is refused rather than guessed at. */
const SCHEMA_VERSION = 1;

/** One component inside the machine's directory: what a record names is never outside it. */
const fileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/);
const digest = z.string().transform((text, context) => {
  try {
    return parseDigest(text);
  } catch (error) {
    context.addIssue(error instanceof Error ? error.message : String(error));
    return z.NEVER;
  }
});
/**
 * Typed unknown, because readers have to parse it for what they make of it; but it must survive being JSON.
 */
const opaqueJson = z.unknown().refine((value) => isJson(value), "must be a JSON value");
/** Definitions have a dozen levels. */
const MAX_JSON_DEPTH = 100;
const recordJson = z.strictObject({
  schemaVersion: z.literal(SCHEMA_VERSION),
  id: z.string().refine(isMachineId, "must be a machine id"),
  uuid: machineUuid.regex(/^[0-9a-f-]+$/),
  createdAt: z.iso.datetime(),
  /** The canonical reference as it was asked for, what it resolved to, and the platform manifest chosen. */
  reference: z.string().min(1),
  digest,
  manifestDigest: digest,
  architecture: z.enum(["amd64", "arm64"]),
  /** What the caller asked for; opaque here, compared by {@link sameWishes}. */
  wishes: z.record(z.string(), opaqueJson),
  /** Files of the directory that the guest writes: its disks and NVRAM. All others are read-only. */
  writableFiles: z.array(fileName),
  /** Layers of the image that the machine reads as long as it lives: its kernel, its disk's base. The cache keeps them. */
  uses: z.array(z.strictObject({ mediaType: z.string(), digest, sizeBytes: z.int().min(0) })),
  /** Made for one run of one process, and nobody's when that process is gone. */
  isThrownAway: z.boolean().default(false),
  /** What `prepare` answered for this machine; opaque here. */
  document: opaqueJson,
});

/** What `machine.json` says of a machine. @see {@link parseMachineRecord} for what is guaranteed of it */
export type MachineRecord = z.infer<typeof recordJson>;
export type MachineWishes = MachineRecord["wishes"];

/**
 * Checks a record that is to be written or was read.
 *
 * @param what names it in the error
 * @throws {ShimError} CACHE_LAYOUT_INVALID
 */
export function parseMachineRecord(value: unknown, what: string): MachineRecord {
  const result = recordJson.safeParse(value);
  if (result.success) return result.data;
  throw new ShimError("CACHE_LAYOUT_INVALID", `Cannot use ${what}: ${describeIssues(result.error)}`, {
    cause: result.error,
  });
}

/** Whether two callers asked for the same machine: equal as JSON, whatever the order of keys. */
export function sameWishes(one: MachineWishes, other: MachineWishes): boolean {
  return canonical(one) === canonical(other);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1));
  });
}

/** By hand: a schema of itself takes most of a machine's making. */
function isJson(value: unknown, depth = 0): boolean {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || depth === MAX_JSON_DEPTH) return false;
  if (Array.isArray(value)) return value.every((each) => isJson(each, depth + 1));
  const isPlain = [Object.prototype, null].includes(Object.getPrototypeOf(value));
  return isPlain && Object.values(value).every((each) => isJson(each, depth + 1));
}
