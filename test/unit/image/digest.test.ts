import { describe, expect, it } from "vitest";
import {
  digestAlgorithm,
  digestEncoded,
  digestOf,
  parseDigest,
  shortDigest,
} from "../../../src/image/digest.ts";
import { randomDigest } from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const hex = "0123456789abcdef".repeat(4);

describe("parseDigest", () => {
  it.each(["sha256", "sha512"] as const)("gives a %s digest as it is", (algorithm) => {
    const text = randomDigest(algorithm);
    expect(parseDigest(text)).toBe(text);
  });

  it.each([
    ["nothing", ""],
    ["a colon", ":"],
    ["no algorithm", `:${hex}`],
    ["no colon", `sha256${hex}`],
    ["nothing encoded", "sha256:"],
    ["HM04 a path", "sha256:../../x"],
    ["HM04 a path as the algorithm", `sha256/..:${hex}`],
    ["HM04 dots as the algorithm", `..:${hex}`],
    ["HM04 a percent sign", "sha256:%2e%2e"],
    ["HM04 a NUL", `sha256:${hex}\0`],
    ["a newline at the end", `sha256:${hex}\n`],
    ["a blank in front", ` sha256:${hex}`],
    ["HM04 an algorithm in upper case", `SHA256:${hex}`],
    ["two colons", `sha256:${hex}:${hex}`],
    ["a separator at the end of the algorithm", `sha256+:${hex}`],
    ["a letter beyond ASCII", `sha256:é${hex}`],
    ["over 256 characters", `sha256:${"a".repeat(250)}`],
  ])("refuses %s as no digest at all", (_name, text) => {
    expect(refusalOf(() => parseDigest(text))).toEqual({
      code: "MANIFEST_INVALID",
      message: `Cannot read digest ${JSON.stringify(text.slice(0, 100))}: must be "algorithm:encoded"`,
      details: {},
    });
  });

  it.each([
    ["HM04 63 digits", `sha256:${hex.slice(1)}`, 64],
    ["HM04 65 digits", `sha256:${hex}0`, 64],
    ["HM04 upper case", `sha256:${hex.toUpperCase()}`, 64],
    ["a letter beyond f", `sha256:g${hex.slice(1)}`, 64],
    ["an = of base64", `sha256:${hex.slice(1)}=`, 64],
    ["sha512 with the length of sha256", `sha512:${hex}`, 128],
  ])("refuses %s", (_name, text, length) => {
    expect(refusalOf(() => parseDigest(text))).toEqual({
      code: "MANIFEST_INVALID",
      message: `Cannot read digest "${text}": must be ${length} lower-case hexadecimal characters after "${
        text.slice(0, 6)
      }:"`,
      details: {},
    });
  });

  it.each(["blake3", "sha384", "md5", "sha256+b64u", "constructor", "tostring"])(
    "HM05 tells that algorithm %s is not supported",
    (algorithm) => {
      expect(refusalOf(() => parseDigest(`${algorithm}:${hex}`))).toEqual({
        code: "DIGEST_UNSUPPORTED",
        message:
          `Cannot verify digest "${algorithm}:${hex}": algorithm is "${algorithm}", must be sha256 or sha512`,
        details: {},
      });
    },
  );

  it("takes linear time on a hostile megabyte", () => {
    const started = performance.now();
    for (const text of ["a+".repeat(500_000), `sha256:${"a".repeat(1_000_000)}`, ":".repeat(1_000_000)]) {
      expect(refusalOf(() => parseDigest(text)).code).toBe("MANIFEST_INVALID");
    }
    expect(performance.now() - started).toBeLessThan(200);
  });
});

describe("digestOf", () => {
  it("joins algorithm and encoding", () => {
    expect(digestOf("sha256", hex)).toBe(`sha256:${hex}`);
  });

  it("refuses an encoding of the wrong length", () => {
    expect(refusalOf(() => digestOf("sha512", hex)).code).toBe("MANIFEST_INVALID");
  });
});

describe("the parts of a digest", () => {
  it.each(["sha256", "sha512"] as const)("are given back for %s", (algorithm) => {
    const digest = parseDigest(randomDigest(algorithm));
    expect(`${digestAlgorithm(digest)}:${digestEncoded(digest)}`).toBe(digest);
    expect(digestAlgorithm(digest)).toBe(algorithm);
  });

  it("are shortened for people", () => {
    expect(shortDigest(parseDigest(`sha256:${hex}`))).toBe("sha256:0123456789ab");
  });
});
