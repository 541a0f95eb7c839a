import { describe, expect, it } from "vitest";
import {
  type Descriptor,
  descriptorJson,
  fromDescriptor,
  requireAtMost,
  toDescriptor,
} from "../../../src/image/descriptor.ts";
import { parseDigest } from "../../../src/image/digest.ts";
import { parseJsonDocument } from "../../../src/image/json_document.ts";
import { descriptorJsonOf, randomDigest } from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const digest = randomDigest();

/** Through text: `9007199254740993` is another number in JSON than in JavaScript. */
function read(text: string): Descriptor {
  return toDescriptor(parseJsonDocument(new TextEncoder().encode(text), descriptorJson, "descriptor"));
}

function withSize(size: string): string {
  return `{"mediaType":"a/b","digest":"${digest}","size":${size}}`;
}

describe("toDescriptor", () => {
  it("reads the least there can be", () => {
    expect(read(withSize("0"))).toEqual({ mediaType: "a/b", digest, sizeBytes: 0, annotations: {} });
  });

  it("reads platform and annotations verbatim", () => {
    const platform = { architecture: "x86_64", os: "gardenlinux", variant: "v8" };
    const annotations = { "org.opencontainers.image.title": "../../etc/cron.d/x", "": "\n" };
    const json = descriptorJsonOf({ mediaType: "a/b", digest, size: 7, platform, annotations });
    expect(read(JSON.stringify(json))).toEqual({
      mediaType: "a/b",
      digest,
      sizeBytes: 7,
      annotations,
      platform,
    });
  });

  it("takes null for no platform and no annotations, as some encoders write it", () => {
    const json = descriptorJsonOf({ mediaType: "a/b", digest, platform: null, annotations: null });
    expect(read(JSON.stringify(json))).toEqual({ mediaType: "a/b", digest, sizeBytes: 7, annotations: {} });
  });

  it("takes a platform's missing words for empty ones", () => {
    const json = descriptorJsonOf({ platform: { architecture: null } });
    expect(read(JSON.stringify(json)).platform).toEqual({ architecture: "", os: "" });
  });

  it("HM15 HM21 ignores every other field", () => {
    const json = descriptorJsonOf({
      mediaType: "a/b",
      digest,
      data: "eHh4",
      urls: ["file:///etc/passwd"],
      artifactType: 5,
      platform: { architecture: "amd64", os: "linux", "os.version": "1", features: ["x"] },
    });
    expect(read(JSON.stringify(json))).toEqual({
      mediaType: "a/b",
      digest,
      sizeBytes: 7,
      annotations: {},
      platform: { architecture: "amd64", os: "linux" },
    });
  });

  it.each([
    ["-1", "size: Too small: expected number to be >=0"],
    ["1.5", "size: Invalid input: expected int, received number"],
    ['"5"', "size: Invalid input: expected number, received string"],
    ["9007199254740993", "size: Too big: expected int to be <=9007199254740991"],
    ["1e400", "size: Invalid input: expected number, received Infinity"],
    ["null", "size: Invalid input: expected number, received null"],
    ["true", "size: Invalid input: expected number, received boolean"],
    ["[5]", "size: Invalid input: expected number, received array"],
    ['5,"size":5', '"size" stands twice in one object'],
  ])("HM07 refuses size %s", (size, why) => {
    expect(refusalOf(() => read(withSize(size)))).toEqual({
      code: "MANIFEST_INVALID",
      message: `Cannot read descriptor: ${why}`,
      details: {},
    });
  });

  it("takes the largest size that a number holds exactly", () => {
    expect(read(withSize("9007199254740991")).sizeBytes).toBe(Number.MAX_SAFE_INTEGER);
  });

  it.each([
    ["HM07 no size", { size: undefined }, "size: Invalid input: expected number, received undefined"],
    ["no digest", { digest: undefined }, "digest: Invalid input: expected string, received undefined"],
    [
      "no media type",
      { mediaType: undefined },
      "mediaType: Invalid input: expected string, received undefined",
    ],
    [
      "a number as annotation",
      { annotations: { a: 1 } },
      "annotations.a: Invalid input: expected string, received number",
    ],
    [
      "a number as operating system",
      { platform: { architecture: "amd64", os: 5 } },
      "platform.os: Invalid input: expected string, received number",
    ],
  ])("refuses %s", (_name, changes, why) => {
    expect(refusalOf(() => read(JSON.stringify(descriptorJsonOf(changes))))).toEqual({
      code: "MANIFEST_INVALID",
      message: `Cannot read descriptor: ${why}`,
      details: {},
    });
  });

  it.each([
    "",
    "text",
    "/",
    "a/",
    "/b",
    "a/b/c",
    "a/b; charset=utf-8",
    "a b/c",
    "a/b\n",
    `a/${"b".repeat(254)}`,
  ])(
    "refuses media type %j",
    (mediaType) => {
      const { code, message } = refusalOf(() => read(JSON.stringify(descriptorJsonOf({ mediaType }))));
      expect({ code, path: message.slice(0, 34) }).toEqual({
        code: "MANIFEST_INVALID",
        path: "Cannot read descriptor: mediaType:",
      });
    },
  );

  it.each([
    ["sha256:../../x", "MANIFEST_INVALID"],
    [`blake3:${"a".repeat(64)}`, "DIGEST_UNSUPPORTED"],
  ])("refuses digest %s", (broken, code) => {
    expect(refusalOf(() => read(JSON.stringify(descriptorJsonOf({ digest: broken })))).code).toBe(code);
  });
});

describe("fromDescriptor", () => {
  it("gives JSON in a fixed order that reads back the same", () => {
    const descriptor: Descriptor = {
      annotations: { variant: "metal" },
      platform: { variant: "v8", os: "linux", architecture: "arm64" },
      sizeBytes: 12,
      digest: parseDigest(digest),
      mediaType: "a/b",
    };
    const text = JSON.stringify(fromDescriptor(descriptor));
    expect(text).toBe(
      `{"mediaType":"a/b","digest":"${digest}","size":12,` +
        `"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"annotations":{"variant":"metal"}}`,
    );
    expect(read(text)).toEqual(descriptor);
  });

  it("leaves out what is not there", () => {
    expect(fromDescriptor({ mediaType: "a/b", digest: parseDigest(digest), sizeBytes: 0, annotations: {} }))
      .toEqual({
        mediaType: "a/b",
        digest,
        size: 0,
      });
  });
});

describe("requireAtMost", () => {
  const descriptor = { mediaType: "a/b", digest: parseDigest(digest), sizeBytes: 2 ** 50, annotations: {} };

  it("lets the limit itself pass", () => {
    requireAtMost(descriptor, 2 ** 50, "layer");
  });

  it("HM09 refuses one byte more before any of them is asked for", () => {
    expect(refusalOf(() => requireAtMost(descriptor, 2 ** 50 - 1, "layer"))).toEqual({
      code: "LIMIT_EXCEEDED",
      message:
        `Cannot take layer "${digest}": declared 1125899906842624 bytes, limit is 1125899906842623 bytes`,
      details: {},
    });
  });
});
