import { describe, expect, it } from "vitest";
import { IRONCORE_ARTIFACTS_MANIFEST, OCI_INDEX } from "../../../src/image/media_type.ts";
import { describeOffer, offersOf, type PlatformWish } from "../../../src/image/select_manifest.ts";
import {
  amd64,
  annotated,
  annotatedOnly,
  annotationsAt,
  ARM,
  arm64,
  choose,
  chosenPlace,
  digestAt,
  indexOf,
  METAL,
  readPlaces,
  silent,
  VM,
} from "../../support/choose_manifest.ts";
import { entryJsonOf, type JsonObject } from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

describe("nextStep", () => {
  it.each<[string, PlatformWish, readonly JsonObject[], number]>([
    ["the architecture", ARM, [amd64(), arm64()], 1],
    ["any spelling of the architecture", VM, [arm64(), entryJsonOf("x86_64")], 1],
    ["arm64 with its v8", ARM, [amd64(), arm64({ variant: "v8" })], 1],
    ["HM17 the first of two that match", VM, [arm64(), amd64(), amd64()], 1],
    ["HM17 the first of two that state the wanted variant", METAL, [
      annotated({ variant: "metal" }),
      amd64({ variant: "metal" }),
    ], 0],
    ["the variant annotation", METAL, [
      annotated({ variant: "virtualization" }),
      annotated({ variant: "metal" }),
    ], 1],
    ["a variant in platform.variant", METAL, [
      amd64({ variant: "virtualization" }),
      amd64({ variant: "baremetal" }),
    ], 1],
    ["a variant in cname", METAL, [
      annotated({ cname: "kvm-amd64-1" }),
      annotated({ cname: "metal_pxe-amd64-1" }),
    ], 1],
    [
      "cname baremetal",
      METAL,
      [annotated({ cname: "kvm_x-amd64" }), annotated({ cname: "baremetal-amd64" })],
      1,
    ],
    ["the annotation before platform.variant", METAL, [
      amd64({ variant: "metal", annotations: { variant: "kvm" } }),
      amd64({ variant: "kvm", annotations: { variant: "metal" } }),
    ], 1],
    ["platform.variant before cname", METAL, [
      amd64({ variant: "kvm", annotations: { cname: "metal-amd64" } }),
      amd64({ variant: "metal", annotations: { cname: "kvm-amd64" } }),
    ], 1],
    ["cname, when platform.variant is about the processor", METAL, [
      amd64({ variant: "v3", annotations: { cname: "kvm-amd64" } }),
      amd64({ variant: "v3", annotations: { cname: "metal-amd64" } }),
    ], 1],
    [
      "one that states no variant after one that does",
      VM,
      [amd64(), amd64({ variant: "virtualization" })],
      1,
    ],
    ["one that states no variant, when nobody states the wanted one", METAL, [
      amd64({ variant: "virtualization" }),
      amd64(),
    ], 1],
    ["one whose variant word is empty, as stating none", METAL, [
      annotated({ variant: "kvm" }),
      annotated({ variant: "", cname: "" }),
    ], 1],
    ["linux before another word, whatever the order", VM, [amd64({ os: "gardenlinux" }), amd64()], 1],
    ["linux without variant before another word with it", VM, [
      amd64({ os: "gardenlinux", variant: "kvm" }),
      amd64(),
    ], 1],
    [
      "another word, when linux is of another architecture only",
      VM,
      [arm64(), amd64({ os: "gardenlinux" })],
      1,
    ],
    ["Garden Linux's own index", VM, [
      entryJsonOf("amd64", { os: "gardenlinux", annotations: { cname: "ali-gardener_prod-amd64-1" } }),
      entryJsonOf("arm64", { os: "gardenlinux", annotations: { cname: "kvm-gardener_prod-arm64-1" } }),
      entryJsonOf("amd64", { os: "gardenlinux", annotations: { cname: "metal-gardener_prod-amd64-1" } }),
      entryJsonOf("amd64", { os: "gardenlinux", annotations: { cname: "kvm-gardener_prod-amd64-1" } }),
    ], 3],
    ["Garden Linux's features, where there is no canonical name", METAL, [
      annotated({ feature_set: "base,_slim,aws,log" }),
      annotated({ feature_set: "base,kvm,_nokvm" }),
      annotated({ feature_set: "_pxe,metal,base" }),
    ], 2],
    ["the canonical name before the features", METAL, [
      annotated({ cname: "kvm-amd64", feature_set: "metal" }),
      annotated({ cname: "metal-amd64", feature_set: "kvm" }),
    ], 1],
    ["one without a word for its system as if it were linux", METAL, [
      amd64({ variant: "kvm" }),
      annotatedOnly({ architecture: "amd64", variant: "metal" }),
    ], 1],
    ["an architecture that only an annotation states", ARM, [
      silent({ annotations: { architecture: "amd64" } }),
      silent({ annotations: { architecture: "aarch64" } }),
    ], 1],
    ["an annotated architecture, when platform states an empty one", ARM, [
      amd64(),
      entryJsonOf("", { os: "", annotations: { architecture: "arm64" } }),
    ], 1],
    ["the platform's architecture before the annotation's", ARM, [
      entryJsonOf("amd64", { annotations: { architecture: "arm64" } }),
      entryJsonOf("arm64", { annotations: { architecture: "amd64" } }),
    ], 1],
    ["the only manifest, when it states nothing", VM, [silent()], 0],
    ["the only manifest, beside entries that are none", VM, [silent({ mediaType: "a/b" }), silent()], 1],
    ["the manifest type of the first edition", VM, [amd64({ mediaType: IRONCORE_ARTIFACTS_MANIFEST })], 0],
    ["a manifest, not an index of the same platform", VM, [amd64({ mediaType: OCI_INDEX }), amd64()], 1],
  ])("chooses %s", (_name, wish, entries, place) => {
    expect(chosenPlace(indexOf(...entries), wish)).toBe(place);
  });

  it("takes what only the manifests state, after what the index states", () => {
    const index = indexOf(silent(), silent(), silent(), silent());
    const manifests = annotationsAt(index, {
      0: { architecture: "amd64", variant: "metal" },
      1: { architecture: "amd64", variant: "virtualization" },
      2: { architecture: "arm64", variant: "metal" },
      3: { architecture: "arm64", cname: "kvm-arm64" },
    });
    expect(
      [VM, METAL, ARM, { ...ARM, variant: "metal" as const }].map((wish) =>
        chosenPlace(index, wish, manifests)
      ),
    ).toEqual([
      1,
      0,
      3,
      2,
    ]);
  });

  it("lets the entry's own word decide over its manifest's", () => {
    const index = indexOf(annotated({ cname: "metal-amd64" }), amd64());
    const manifests = annotationsAt(index, {
      0: { variant: "kvm", architecture: "arm64" },
      1: { variant: "kvm" },
    });
    expect([VM, METAL].map((wish) => chosenPlace(index, wish, manifests))).toEqual([1, 0]);
  });

  it("gives the chosen offer, as it was read", () => {
    const index = indexOf(entryJsonOf("x86_64", { variant: "kvm" }));
    expect(choose(index, VM).offer).toEqual({
      descriptor: index.entries[0],
      architecture: "amd64",
      architectureWord: "x86_64",
      os: "linux",
      variant: "virtualization",
    });
  });

  it.each<[string, PlatformWish, readonly JsonObject[], string, readonly (readonly (string | null)[])[]]>([
    ["nothing", VM, [], "nothing", []],
    ["other architectures", ARM, [amd64(), entryJsonOf("s390x")], "amd64/unstated, s390x/unstated", [
      ["amd64", "linux", null],
      ["s390x", "linux", null],
    ]],
    [
      "other variants",
      METAL,
      [amd64({ variant: "kvm" }), annotated({ variant: "cloud" })],
      "amd64/virtualization, amd64/other",
      [
        ["amd64", "linux", "virtualization"],
        ["amd64", "linux", "other"],
      ],
    ],
    [
      "the wanted variant for another system only, where linux exists",
      METAL,
      [
        amd64({ os: "gardenlinux", variant: "metal" }),
        amd64({ variant: "kvm" }),
      ],
      "amd64/metal, amd64/virtualization",
      [["amd64", "gardenlinux", "metal"], ["amd64", "linux", "virtualization"]],
    ],
    [
      "clouds only",
      VM,
      [entryJsonOf("amd64", { os: "gardenlinux", annotations: { cname: "aws-amd64" } })],
      "amd64/other",
      [
        ["amd64", "gardenlinux", "other"],
      ],
    ],
    ["two manifests that state nothing", VM, [silent(), silent()], "any/unstated", [
      [null, null, null],
      [null, null, null],
    ]],
    ["one manifest of another architecture", VM, [arm64()], "arm64/unstated", [["arm64", "linux", null]]],
    ["documents that are no manifests", VM, [amd64({ mediaType: "a/b" })], "nothing", []],
  ])("HM17 refuses with a list when there are %s", (_name, wish, entries, list, offered) => {
    const index = indexOf(...entries);
    const places = offersOf(index).map((offer) => offer.descriptor.digest);
    expect(refusalOf(() => choose(index, wish))).toEqual({
      code: "PLATFORM_NOT_FOUND",
      message:
        `Cannot choose a manifest: wanted ${wish.architecture}/${wish.variant}, the image offers ${list}`,
      details: {
        offered: offered.map(([architecture, os, variant], i) => ({
          architecture,
          os,
          variant,
          digest: places[i],
        })),
        remedy: "choose one of the offered with --arch and --variant",
      },
    });
  });
});

describe("nextStep, on what it reads", () => {
  it.each<[string, PlatformWish, readonly JsonObject[], readonly number[]]>([
    ["nothing when an entry states the wanted variant", VM, [amd64(), amd64({ variant: "kvm" })], []],
    ["the manifests of the architecture that state no variant", VM, [
      amd64(),
      arm64(),
      amd64({ variant: "metal" }),
      amd64(),
    ], [0, 3]],
    ["those that state no architecture", ARM, [silent(), amd64(), silent(), arm64()], [0, 2, 3]],
    ["those that state the wanted variant but no architecture", METAL, [
      annotatedOnly({ variant: "metal" }),
      annotatedOnly({ variant: "kvm" }),
      silent(),
      amd64(),
    ], [0, 2, 3]],
    ["linux, and what has no word for its system, where linux exists", VM, [
      amd64({ os: "gardenlinux" }),
      amd64(),
      silent(),
      amd64(),
    ], [1, 2, 3]],
    ["other systems, where linux is of another architecture", VM, [amd64({ os: "gardenlinux" }), arm64()], [
      0,
    ]],
    ["no documents that are neither manifest nor index", VM, [silent({ mediaType: "a/b" }), silent()], [1]],
  ])("is %s", (_name, wish, entries, places) => {
    expect(readPlaces(indexOf(...entries), wish)).toEqual(places);
  });

  it("reads no further than to the first manifest that states the wish", () => {
    const index = indexOf(amd64(), amd64(), amd64());
    const manifests = annotationsAt(index, { 1: { variant: "metal" }, 2: { variant: "metal" } });
    expect(readPlaces(index, METAL, { manifests })).toEqual([0, 1]);
    expect(chosenPlace(index, METAL, manifests)).toBe(1);
  });

  it("HM18 reads 64 documents and not one more", () => {
    const entries = Array.from({ length: 65 }, () => amd64());
    expect(readPlaces(indexOf(...entries.slice(1)), VM)).toHaveLength(64);
    expect(refusalOf(() => choose(indexOf(...entries), VM))).toEqual({
      code: "LIMIT_EXCEEDED",
      message:
        "Cannot choose a manifest from the image index: 64 documents in it were read, and none decides",
      details: { remedy: "name the manifest itself: …@sha256:DIGEST" },
    });
  });
});

describe("nextStep, on entries whose digests cannot be verified", () => {
  const blake = (changes: JsonObject = {}) => ({ ...amd64(changes), digest: `blake3:${"a".repeat(64)}` });

  it("HM05 passes over them when another entry will do", () => {
    const index = indexOf(blake({ variant: "kvm" }), amd64());
    expect(choose(index, VM).offer.descriptor).toBe(index.entries[0]);
  });

  it("HM05 refuses when only they would do", () => {
    const index = indexOf(blake({ variant: "kvm" }), arm64());
    expect(refusalOf(() => choose(index, VM))).toEqual({
      code: "DIGEST_UNSUPPORTED",
      message: `Cannot choose a manifest: the one for amd64/virtualization has digest "blake3:${
        "a".repeat(64)
      }", must be sha256 or sha512`,
      details: {},
    });
  });

  it("HM17 lists them among what there is", () => {
    const index = indexOf(blake({ variant: "metal" }), arm64());
    expect(refusalOf(() => choose(index, VM)).details["offered"]).toEqual([
      { architecture: "arm64", os: "linux", variant: null, digest: digestAt(index, 0) },
      { architecture: "amd64", os: "linux", variant: "metal", digest: `blake3:${"a".repeat(64)}` },
    ]);
  });
});

describe("describeOffer", () => {
  it("tells our word for the architecture, else the image's own", () => {
    const index = indexOf(
      entryJsonOf("aarch64", { variant: "metal" }),
      entryJsonOf("riscv64", { os: "plan9" }),
      silent(),
    );
    expect(offersOf(index).map(describeOffer)).toEqual([
      { architecture: "arm64", os: "linux", variant: "metal", digest: digestAt(index, 0) },
      { architecture: "riscv64", os: "plan9", variant: null, digest: digestAt(index, 1) },
      { architecture: null, os: null, variant: null, digest: digestAt(index, 2) },
    ]);
  });
});
