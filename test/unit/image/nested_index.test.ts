import { describe, expect, it } from "vitest";
import type { ImageIndex } from "../../../src/image/image_index.ts";
import { OCI_INDEX } from "../../../src/image/media_type.ts";
import {
  amd64,
  ARM,
  arm64,
  type Below,
  choose,
  digestAt,
  indexOf,
  METAL,
  readPlaces,
  silent,
  VM,
} from "../../support/choose_manifest.ts";
import {
  descriptorJsonOf,
  entryJsonOf,
  type JsonObject,
  randomDigest,
} from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";
import { leastTimeMs } from "../../support/least_time.ts";

describe("nextStep, on indexes inside indexes", () => {
  const nest = (changes: JsonObject = {}) => descriptorJsonOf({ mediaType: OCI_INDEX, ...changes });
  /** The indexes by the digests of the entries that name them. */
  const below = (...pairs: readonly (readonly [JsonObject, ImageIndex])[]): Below => ({
    indexes: new Map(pairs.map(([entry, index]) => [digestAt(indexOf(entry), 0), index])),
  });

  it("finds the manifest inside, wherever it is", () => {
    const [outer, inner] = [nest(), nest()];
    const deep = indexOf(arm64({ variant: "kvm" }), amd64({ variant: "kvm" }));
    const index = indexOf(arm64({ variant: "metal" }), outer);
    const { offer, read } = choose(index, VM, below([outer, indexOf(inner)], [inner, deep]));
    expect(offer.descriptor).toEqual(deep.entries[1]);
    expect(read).toEqual([outer["digest"], inner["digest"]]);
  });

  it("does not look inside when what lies open decides", () => {
    const nested = nest();
    expect(choose(indexOf(nested, amd64({ variant: "kvm" })), VM).read).toEqual([]);
  });

  it.each([
    ["architecture", { platform: { architecture: "arm64", os: "linux" } }],
    ["variant", { annotations: { variant: "metal" } }],
  ])("does not look inside one that states another %s", (_name, changes) => {
    const index = indexOf(nest(changes), amd64());
    expect(readPlaces(index, VM)).toEqual([1]);
  });

  it("takes what its entry states for what is inside and states nothing", () => {
    const [vm, metal] = [
      nest({ platform: { architecture: "amd64", os: "linux", variant: "virtualization" } }),
      nest({ platform: { architecture: "amd64", os: "linux" }, annotations: { variant: "metal" } }),
    ];
    const inside = [indexOf(silent()), indexOf(silent())] as const;
    const index = indexOf(metal, vm);
    const found = [VM, METAL].map((wish) =>
      choose(index, wish, below([vm, inside[0]], [metal, inside[1]])).offer.descriptor.digest
    );
    expect(found).toEqual(inside.map((each) => digestAt(each, 0)));
  });

  it("offers the same index once more where another entry states something else of it", () => {
    const digest = randomDigest();
    const entries = ["amd64", "arm64"].map((architecture) =>
      nest({ digest, platform: { architecture, os: "linux" } })
    );
    const inside = indexOf(silent({ annotations: { variant: "kvm" } }));
    const [entry = {}] = entries;
    for (const wish of [VM, ARM]) {
      const { offer } = choose(indexOf(...entries), wish, below([entry, inside]));
      expect([offer.descriptor, offer.architecture]).toEqual([inside.entries[0], wish.architecture]);
    }
  });

  it("HM17 looks everywhere before it refuses, so that the list is complete", () => {
    const [foreign, inner] = [nest({ platform: { architecture: "arm64", os: "linux" } }), nest()];
    const index = indexOf(foreign, amd64({ variant: "metal" }));
    const indexes = below([foreign, indexOf(silent(), inner)], [inner, indexOf(arm64({ variant: "kvm" }))]);
    const { code, details } = refusalOf(() => choose(index, VM, indexes));
    expect([code, details["offered"]]).toMatchObject(["PLATFORM_NOT_FOUND", [
      { architecture: "arm64", os: "linux", variant: null },
      { architecture: "arm64", os: "linux", variant: "virtualization" },
      { architecture: "amd64", os: "linux", variant: "metal" },
    ]]);
  });

  /** Indexes inside each other; the innermost holds a manifest. */
  function chain(depth: number): { index: ImageIndex; indexes: Below } {
    const entries = Array.from({ length: depth }, () => nest());
    const indexes = entries.map((_, i) => indexOf(entries[i + 1] ?? amd64({ variant: "kvm" })));
    const pairs = entries.map((entry, i) => [entry, indexes[i] ?? indexOf()] as const);
    return { index: indexOf(...entries.slice(0, 1)), indexes: below(...pairs) };
  }

  it("HM18 looks into four indexes inside each other, the first among them", () => {
    const { index, indexes } = chain(3);
    expect(choose(index, VM, indexes).offer.variant).toBe("virtualization");
  });

  it.each([5, 50])("HM18 refuses %i indexes inside each other", (depth) => {
    const { index, indexes } = chain(depth - 1);
    expect(refusalOf(() => choose(index, VM, indexes))).toMatchObject({
      code: "LIMIT_EXCEEDED",
      message: "Cannot choose a manifest from the image index: indexes are nested over 4 deep in it",
    });
  });

  it("HM18 looks at each of 1,000 paths' few indexes once", () => {
    const levels = Array.from({ length: 3 }, () => nest());
    const indexes = levels.map((_, i) => {
      const next = levels[i + 1] ?? amd64({ variant: "kvm" });
      return indexOf(...Array.from({ length: 10 }, () => next));
    });
    const index = indexOf(...Array.from({ length: 10 }, () => levels[0] ?? {}));
    const pairs = levels.map((entry, i) => [entry, indexes[i] ?? indexOf()] as const);
    const { read, survey } = choose(index, VM, below(...pairs));
    expect([read.length, survey.manifests.length]).toEqual([3, 10]);
  });

  it("HM18 refuses over 1,000 descriptors in all, in less than a tenth of a second", async () => {
    const [first, second] = [nest(), nest()];
    const many = (count: number) => indexOf(...Array.from({ length: count }, () => entryJsonOf("s390x")));
    const index = indexOf(first, second);
    expect(refusalOf(() => choose(index, VM, below([first, many(498)], [second, many(500)]))).code).toBe(
      "PLATFORM_NOT_FOUND",
    );
    expect(refusalOf(() => choose(index, VM, below([first, many(499)], [second, many(500)])))).toMatchObject({
      code: "LIMIT_EXCEEDED",
      message: "Cannot read the image index: with the indexes inside it has over 1000 entries",
    });
    const refuse = () => refusalOf(() => choose(index, VM, below([first, many(499)], [second, many(500)])));
    expect(await leastTimeMs(100, refuse)).toBeLessThan(100);
  });
});
