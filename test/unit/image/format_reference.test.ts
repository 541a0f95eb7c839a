import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShimError } from "../../../src/errors.ts";
import { formatReference, parseReference } from "../../../src/image/reference.ts";
import { FUZZ_RUNS } from "../../support/fuzz_runs.ts";
import { randomDigest } from "../../support/image_documents.ts";

const digest = randomDigest();

/** Text near the grammar: pieces that mean something to it, in any order. */
const pieces = fc.array(
  fc.oneof(
    fc.constantFrom(
      "docker://",
      "oci:",
      "oci-archive:",
      "dir",
      "sha256",
      "h.io",
      "localhost",
      "[::1]",
      "os",
      "/",
      ":",
      "@",
      ".",
      "-",
      "_",
      "5000",
    ),
    fc.constantFrom(digest, `@${digest}`, ":1", "A", " ", "ö", "\u212A", "\n", "\ud800"),
    fc.string({ maxLength: 3 }),
  ),
  { maxLength: 8 },
).map((words) => words.join(""));
const valid = fc.tuple(
  fc.constantFrom(
    "h.io/",
    "docker://oci:1/",
    "docker://dir:80/",
    "[::1]:2/",
    "oci:",
    "oci-archive:",
    "oci:/a:b/",
    "oci:x@",
    "oci:/y@sha256/",
  ),
  fc.stringMatching(/^[a-z0-9]{1,5}$/),
  fc.constantFrom("", ":1", ":latest", `@${digest}`, `:1@${digest}`, ":0123456789abcdef0123456789abcdef"),
).map((words) => words.join(""));
const anyCharacter = fc.nat(0xffff).map((code) => String.fromCharCode(code));
const anyText = fc.oneof(pieces, valid, fc.string({ unit: anyCharacter, maxLength: 40 }));

describe("parseReference", () => {
  it("throws nothing but REFERENCE_INVALID, whatever the text", () => {
    fc.assert(fc.property(anyText, (text) => {
      try {
        parseReference(text);
      } catch (error) {
        expect(error instanceof ShimError && error.code).toBe("REFERENCE_INVALID");
      }
    }));
  });
});

describe("formatReference", () => {
  it.each([
    ["docker://Registry.Example.ORG/os", "registry.example.org/os:latest"],
    ["h.io:5000/os:1", "h.io:5000/os:1"],
    [`h.io/os:1@${digest}`, `h.io/os@${digest}`],
    ["[::1]:5000/os", "[::1]:5000/os:latest"],
    ["docker://oci:5000/os:1", "docker://oci:5000/os:1"],
    ["docker://dir:5000/os:1", "docker://dir:5000/os:1"],
    ["oci:/srv/images", "oci:/srv/images:latest"],
    ["oci:/srv/images:h.io:1/os:1", "oci:/srv/images:h.io:1/os:1"],
    [`oci:/srv/images:1@${digest}`, `oci:/srv/images@${digest}`],
    ["oci-archive:/srv/a.tar", "oci-archive:/srv/a.tar:latest"],
    [`oci-archive:/srv/a.tar@${digest}`, `oci-archive:/srv/a.tar@${digest}`],
    ["oci:/srv/me@home", "oci:/srv/me@home:latest"],
    [`oci:/srv/images@${digest}`, `oci:/srv/images@${digest}`],
  ])("spells %s in the one way", (text, spelling) => {
    expect(formatReference(parseReference(text))).toBe(spelling);
  });

  it("is read back as the same reference, but for the tag beside a digest", () => {
    let read = 0;
    fc.assert(
      fc.property(anyText, (text) => {
        const reference = readOrUndefined(text);
        if (!reference) return;
        read++;
        expect(parseReference(formatReference(reference))).toEqual(
          reference.digest ? { ...reference, tag: "latest" } : reference,
        );
      }),
      { numRuns: FUZZ_RUNS },
    );
    // The generator must not run dry.
    expect(read).toBeGreaterThan(FUZZ_RUNS / 10);
  });
});

function readOrUndefined(text: string): ReturnType<typeof parseReference> | undefined {
  try {
    return parseReference(text);
  } catch {
    // What it throws is another property's affair.
    return undefined;
  }
}
