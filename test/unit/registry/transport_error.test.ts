import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { translateTransportError } from "../../../src/registry/transport_error.ts";

const withCode = (code: string) => Object.assign(new Error(`foreign words about ${code}`), { code });

describe("translateTransportError", () => {
  it.each([
    ["ENOTFOUND", "REGISTRY_UNAVAILABLE"],
    ["EAI_AGAIN", "REGISTRY_UNAVAILABLE"],
    ["EHOSTUNREACH", "REGISTRY_UNAVAILABLE"],
    ["ENETUNREACH", "REGISTRY_UNAVAILABLE"],
    ["ETIMEDOUT", "REGISTRY_TIMEOUT"],
    ["CERT_HAS_EXPIRED", "REGISTRY_TLS"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "REGISTRY_TLS"],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "REGISTRY_TLS"],
    ["SELF_SIGNED_CERT_IN_CHAIN", "REGISTRY_TLS"],
    ["EPROTO", "REGISTRY_TLS"],
    ["constructor", "INTERNAL"],
  ])("RP48 RP47 %s is %s, with the foreign error as cause", (foreign, code) => {
    const cause = withCode(foreign);
    const error = translateTransportError(cause, { action: "fetch it" });
    expect([error.code, error.cause]).toEqual([code, cause]);
    expect(error.message).toMatch(new RegExp(`^Cannot fetch it: .*\\(${foreign}\\)$`));
  });

  it("RP48 reads a group of failed addresses by its last", () => {
    const group = new AggregateError([withCode("ENETUNREACH"), withCode("ETIMEDOUT")]);
    expect(translateTransportError(group, { action: "fetch it" }).code).toBe("REGISTRY_TIMEOUT");
  });

  it("says CANCELLED for anything that follows an abort, and passes our own errors", () => {
    const signal = AbortSignal.abort();
    expect(translateTransportError(withCode("ECONNRESET"), { action: "x", signal }).code).toBe("CANCELLED");
    const own = new ShimError("IO_ERROR", "Cannot read");
    expect(translateTransportError(own, { action: "x" })).toBe(own);
  });
});
