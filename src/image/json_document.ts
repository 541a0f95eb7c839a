import { z } from "zod";
import { ShimError } from "../errors.ts";

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** No document that bootshim reads nests deeper than a dozen levels. */
const MAX_DEPTH = 100;
/** An index of 1,000 entries, each with a dozen annotations, has a tenth of that. Of objects and arrays, and commas. */
const MAX_VALUES = 250_000;

/** distribution-spec asks registries to take manifests of at least 4 MiB; nothing larger is read. */
export const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;

/**
 * Parses verified bytes as one JSON document of a known shape.
 *
 * @param what names the document in the error: "image manifest sha256:…"
 * @throws {ShimError} MANIFEST_INVALID when the bytes are no UTF-8, no JSON, no I-JSON (a name twice in an object, half
 *   a surrogate pair: readers differ over what such a document says), when an object has a name that every object of many
 *   readers has (`__proto__`), when they are nested over 100 levels, of over 250,000 values, or of another shape (the
 *   path is told)
 * @see https://www.rfc-editor.org/rfc/rfc7493#section-2
 */
export function parseJsonDocument<T>(bytes: Uint8Array, schema: z.ZodType<T>, what: string): T {
  return requireShape(readJson(bytes, what), schema, what);
}

/** The first half of {@link parseJsonDocument}: bytes to a JSON value of any shape. Throws as it does. */
export function readJson(bytes: Uint8Array, what: string): unknown {
  // No document holds more values than bytes; how deep a small one is, is seen on the way.
  const excess = bytes.length > MAX_VALUES ? findExcess(bytes) : undefined;
  if (excess !== undefined) throw new ShimError("MANIFEST_INVALID", `Cannot read ${what}: ${excess}`);
  let text: string;
  let value: unknown;
  try {
    text = UTF8.decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    throw new ShimError("MANIFEST_INVALID", `Cannot read ${what}: it is not a UTF-8 JSON document`, {
      cause: error,
    });
  }
  const ambiguity = findAmbiguity(text);
  if (ambiguity !== undefined) throw new ShimError("MANIFEST_INVALID", `Cannot read ${what}: ${ambiguity}`);
  return value;
}

/** The second half: a JSON value of a known shape. Throws as {@link parseJsonDocument} does. */
export function requireShape<T>(value: unknown, schema: z.ZodType<T>, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new ShimError("MANIFEST_INVALID", `Cannot read ${what}: ${describeIssues(result.error)}`, {
    cause: result.error,
  });
}

const TOO_DEEP = `it is nested over ${MAX_DEPTH} levels`;

// UTF-8 has these bytes for nothing else.
const [SPACE, QUOTE, COMMA, COLON, BACKSLASH] = [0x20, 0x22, 0x2c, 0x3a, 0x5c];
const [OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [0x7b, 0x7d, 0x5b, 0x5d];

/**
 * What would take a parser far more memory than the bytes, by a look at them that takes none; undefined for nothing. They
 * need not be JSON: where they are none, the parser stops.
 */
function findExcess(bytes: Uint8Array): string | undefined {
  let depth = 0;
  let values = 0;
  let isInString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (isInString) {
      if (byte === BACKSLASH) i += 1;
      else if (byte === QUOTE) isInString = false;
    } else if (byte === QUOTE) {
      isInString = true;
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1;
      values += 1;
      if (depth > MAX_DEPTH) return TOO_DEEP;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
    } else if (byte === COMMA) {
      values += 1;
    }
    if (values > MAX_VALUES) return `it holds over ${MAX_VALUES} values`;
  }
  return undefined;
}

/** In no document seen in the wild; what a reader in JavaScript makes of one depends on how it copies objects. */
const NAMES_OF_PROTOTYPES: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);

/** What JSON.parse lets pass, and other readers may read otherwise; undefined for none. @param text valid JSON */
function findAmbiguity(text: string): string | undefined {
  /** The names so far of each open object; null for an open array. */
  const open: (Set<string> | null)[] = [];
  let escape = nextEscape(text, 0);
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      if (escape < at) escape = nextEscape(text, at);
      const nextQuote = text.indexOf('"', at + 1);
      const hasEscape = escape < nextQuote;
      const end = hasEscape ? endOfString(text, at) : nextQuote + 1;
      const names = isBeforeColon(text, end) ? open.at(-1) : null;
      if (hasEscape || names) {
        const word = hasEscape ? String(JSON.parse(text.slice(at, end))) : text.slice(at + 1, end - 1);
        // UTF-8 has no half of a pair, so only an escape can make one.
        if (hasEscape && !word.isWellFormed()) return "it holds half a surrogate pair";
        if (names?.has(word)) return `${JSON.stringify(word.slice(0, 100))} stands twice in one object`;
        if (names && NAMES_OF_PROTOTYPES.has(word)) {
          return `it holds the name "${word}", which is no document's to give`;
        }
        names?.add(word);
      }
      at = end - 1;
    } else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      open.push(code === OPEN_BRACE ? new Set() : null);
      if (open.length > MAX_DEPTH) return TOO_DEEP;
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      open.pop();
    }
  }
  return undefined;
}

function nextEscape(text: string, start: number): number {
  const at = text.indexOf("\\", start);
  return at === -1 ? Infinity : at;
}

function isBeforeColon(text: string, start: number): boolean {
  let at = start;
  while (text.charCodeAt(at) <= SPACE) at += 1;
  return text.charCodeAt(at) === COLON;
}

/** Behind the closing quote. Not by a pattern: one with a choice in a loop runs out of stack at a million escapes. */
function endOfString(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1);; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return quote + 1;
  }
}

/** The first few violations as "path: what is wrong"; the whole list would be as long as a hostile document likes. */
export function describeIssues(error: z.ZodError): string {
  const shown = error.issues.slice(0, 3).map((issue) =>
    `${issue.path.map(String).join(".") || "document"}: ${issue.message}`
  );
  const more = error.issues.length - shown.length;
  return shown.join("; ") + (more > 0 ? `; and ${more} more` : "");
}
