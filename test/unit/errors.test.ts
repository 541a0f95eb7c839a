import { describe, expect, it } from "vitest";
import { CODES, type ErrorCode, ShimError, toShimError } from "../../src/errors.ts";

/** CONTRACT.md section 8, row by row. */
const CONTRACT: readonly (readonly [codes: string, exit: number, http: number])[] = [
  ["REFERENCE_INVALID, REQUEST_INVALID", 64, 400],
  ["POLICY_DENIED", 77, 403],
  ["REGISTRY_NOT_FOUND, IMAGE_NOT_FOUND, MACHINE_NOT_FOUND, OPERATION_NOT_FOUND", 66, 404],
  ["REGISTRY_UNAUTHORIZED, REGISTRY_DENIED", 77, 502],
  ["REGISTRY_RATE_LIMITED, REGISTRY_UNAVAILABLE", 75, 503],
  ["REGISTRY_TIMEOUT", 75, 504],
  ["REGISTRY_TLS, REGISTRY_PROTOCOL, REDIRECT_REFUSED, REALM_REFUSED", 76, 502],
  ["CREDENTIALS_INVALID", 78, 500],
  ["MANIFEST_INVALID, MANIFEST_TOO_LARGE, MEDIA_TYPE_UNSUPPORTED, DIGEST_UNSUPPORTED", 65, 422],
  ["PLATFORM_NOT_FOUND, LAYER_MISSING, LAYER_DUPLICATE", 65, 422],
  ["BOOT_MODE_IMPOSSIBLE, CMDLINE_INVALID", 65, 422],
  ["FORMAT_MISMATCH, FORMAT_UNSAFE, LIMIT_EXCEEDED", 65, 422],
  ["CANCELLED", 130, 499],
  ["CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH", 65, 502],
  ["CONTENT_CORRUPT", 74, 500],
  ["NO_SPACE", 74, 507],
  ["IO_ERROR", 74, 500],
  ["CACHE_LAYOUT_INVALID", 74, 500],
  ["CONFLICT, IN_USE", 73, 409],
  ["LOCK_TIMEOUT, BUSY", 75, 503],
  ["CONFIG_INVALID", 78, 500],
  ["HYPERVISOR_UNAVAILABLE, HYPERVISOR_LIBRARY_MISSING", 69, 503],
  ["HYPERVISOR_TIMEOUT", 75, 504],
  ["DOMAIN_INVALID", 70, 422],
  ["DOMAIN_FAILED, QEMU_FAILED", 70, 502],
  ["INTERNAL", 70, 500],
];

/** Those that may pass by themselves: waiting is worth it. */
const RETRYABLE = [
  "BUSY",
  "HYPERVISOR_TIMEOUT",
  "HYPERVISOR_UNAVAILABLE",
  "LOCK_TIMEOUT",
  "REGISTRY_RATE_LIMITED",
  "REGISTRY_TIMEOUT",
  "REGISTRY_UNAVAILABLE",
];

describe("CODES", () => {
  it("are the codes of the contract, with its exit codes and HTTP statuses", () => {
    const contract = CONTRACT.flatMap(([codes, exit, http]) =>
      codes.split(", ").map((code) => [code, { exit, http }] as const)
    );
    const ours = Object.entries(CODES).map(([code, { exit, http }]) => [code, { exit, http }] as const);
    expect(Object.fromEntries(ours)).toEqual(Object.fromEntries(contract));
    expect(contract).toHaveLength(ours.length);
  });

  it("are retryable where the cause passes by itself", () => {
    const retryable = Object.entries(CODES).filter(([, meaning]) => meaning.retryable).map(([code]) => code);
    expect(retryable.sort()).toEqual(RETRYABLE);
  });
});

describe("ShimError", () => {
  it.each(Object.keys(CODES) as ErrorCode[])(
    "%s tells its exit code, HTTP status and whether to retry",
    (code) => {
      const { exitCode, httpStatus, retryable } = new ShimError(code, "Cannot go on: it is a test");
      expect({ exit: exitCode, http: httpStatus, retryable }).toEqual(CODES[code]);
    },
  );

  it("keeps message, cause and details", () => {
    const cause = new Error("ENOENT");
    const error = new ShimError("IO_ERROR", "Cannot read", {
      cause,
      details: { remedy: "look", path: "/x" },
    });
    expect(error).toMatchObject({
      name: "ShimError",
      message: "Cannot read",
      details: { remedy: "look", path: "/x" },
    });
    expect(error.cause).toBe(cause);
  });

  it("has no cause and no details unless they are given", () => {
    const error = new ShimError("IO_ERROR", "Cannot read");
    expect([Object.hasOwn(error, "cause"), error.details]).toEqual([false, {}]);
  });
});

describe("toShimError", () => {
  it("gives back an error that has a code", () => {
    const error = new ShimError("BUSY", "Cannot lock");
    expect(toShimError(error)).toBe(error);
  });

  it.each([
    [
      "an Error",
      new TypeError("x is not a function"),
      "Cannot go on: unexpected failure, x is not a function",
    ],
    ["a string", "boom", "Cannot go on: unexpected failure, boom"],
    ["undefined", undefined, "Cannot go on: unexpected failure, undefined"],
  ])("makes INTERNAL of %s", (_name, thrown, message) => {
    const { code, message: told, cause, retryable } = toShimError(thrown);
    expect({ code, told, cause, retryable }).toEqual({
      code: "INTERNAL",
      told: message,
      cause: thrown,
      retryable: false,
    });
  });
});
