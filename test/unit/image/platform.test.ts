import { describe, expect, it } from "vitest";
import {
  architectureHint,
  architectureOf,
  requireArchitecture,
  requireVariant,
  variantOf,
} from "../../../src/image/platform.ts";
import { refusalOf } from "../../support/failures.ts";

const ARCHITECTURES = [
  ["amd64", "amd64"],
  ["x86_64", "amd64"],
  ["x86-64", "amd64"],
  ["x64", "amd64"],
  ["AMD64", "amd64"],
  ["arm64", "arm64"],
  ["aarch64", "arm64"],
  ["arch64", "arm64"],
  ["v8", "arm64"],
  ["AArch64", "arm64"],
] as const;
const VARIANTS = [
  ["virtualization", "virtualization"],
  ["kvm", "virtualization"],
  ["vm", "virtualization"],
  ["Virtualization", "virtualization"],
  ["metal", "metal"],
  ["baremetal", "metal"],
  ["BareMetal", "metal"],
] as const;
const NEITHER = [
  "",
  "s390x",
  "i386",
  "arm",
  " amd64",
  "unknown",
  "constructor",
  "__proto__",
  "hasOwnProperty",
];

describe("architectureOf and requireArchitecture", () => {
  it.each(ARCHITECTURES)("read %s as %s", (word, architecture) => {
    expect([architectureOf(word), requireArchitecture(word)]).toEqual([architecture, architecture]);
  });

  it.each(NEITHER)("know no architecture %j", (word) => {
    expect(architectureOf(word)).toBeUndefined();
    expect(refusalOf(() => requireArchitecture(word))).toEqual({
      code: "REQUEST_INVALID",
      message: `Cannot use architecture ${JSON.stringify(word)}: ` +
        "must be one of amd64, x86_64, x86-64, x64, arm64, aarch64, arch64, v8",
      details: {},
    });
  });
});

describe("variantOf and requireVariant", () => {
  it.each(VARIANTS)("read %s as %s", (word, variant) => {
    expect([variantOf(word), requireVariant(word)]).toEqual([variant, variant]);
  });

  it.each([...NEITHER, "v8", "kvm-gardener"])("know no variant %j", (word) => {
    expect(variantOf(word)).toBeUndefined();
    expect(refusalOf(() => requireVariant(word))).toEqual({
      code: "REQUEST_INVALID",
      message: `Cannot use variant ${JSON.stringify(word)}: ` +
        "must be one of virtualization, kvm, vm, metal, baremetal",
      details: {},
    });
  });
});

describe("architectureHint", () => {
  it.each([
    ["1443.3-amd64", "amd64"],
    ["os-images/gardenlinux-arm64", "arm64"],
    ["1.0-x86_64", "amd64"],
    ["1.0-x86-64", "amd64"],
    ["24.04-kvm-aarch64", "arm64"],
    ["arm64", "arm64"],
    ["amd64-1443.3", undefined],
    ["1.0-notamd64", undefined],
    ["1.0", undefined],
    ["", undefined],
  ])("reads the end of %j as %s", (name, architecture) => {
    expect(architectureHint(name)).toBe(architecture);
  });
});
