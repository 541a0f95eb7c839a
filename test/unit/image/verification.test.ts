import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { parseDigest } from "../../../src/image/digest.ts";
import { hashBytes, verifyBytes } from "../../../src/image/verification.ts";

const bytes = new Uint8Array(randomBytes(1000));
const sha512 = parseDigest(`sha512:${createHash("sha512").update(bytes).digest("hex")}`);

describe("hashBytes", () => {
  it("gives the sha256 digest", () => {
    expect(hashBytes(new Uint8Array())).toBe(
      "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    );
  });
});

describe("verifyBytes", () => {
  it("accepts what the descriptor names, by either algorithm", () => {
    verifyBytes({ digest: hashBytes(bytes), sizeBytes: 1000 }, bytes);
    verifyBytes({ digest: sha512, sizeBytes: 1000 }, bytes);
  });

  it.each([999, 1001, 0])("tells a size of %i before it hashes", (sizeBytes) => {
    expect(() => verifyBytes({ digest: hashBytes(bytes), sizeBytes }, bytes)).toThrow(
      expect.objectContaining({
        code: "CONTENT_SIZE_MISMATCH",
        message: `Cannot verify "${
          hashBytes(bytes)
        }": received 1000 bytes, descriptor says ${sizeBytes} bytes`,
      }),
    );
  });

  it("tells one flipped bit", () => {
    const flipped = Uint8Array.from(bytes, (byte, i) => i === 500 ? byte ^ 1 : byte);
    for (const digest of [hashBytes(bytes), sha512]) {
      expect(() => verifyBytes({ digest, sizeBytes: 1000 }, flipped)).toThrow(
        expect.objectContaining({ code: "CONTENT_DIGEST_MISMATCH" }),
      );
    }
  });
});
