import type { ErrorCode } from "../errors.ts";

/**
 * What is wrong with a file that is not what its layer's media type says: it is something else, or cut off; two readers
 * would read it differently, or be led out of it; it is larger than any such file.
 */
export type FormatFault = Extract<ErrorCode, "FORMAT_MISMATCH" | "FORMAT_UNSAFE" | "LIMIT_EXCEEDED">;
