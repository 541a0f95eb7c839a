import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { type PlatformWish } from "../../../src/image/select_manifest.ts";
import { ARM, chosenPlace, digestAt, indexOf, METAL, VM } from "../../support/choose_manifest.ts";
import { descriptorJsonOf, type JsonObject } from "../../support/image_documents.ts";

describe("nextStep, on both architectures in both variants", () => {
  type Way = (wish: PlatformWish, words: { architecture: string; variant: string; feature: string }) => {
    entry: JsonObject;
    own?: Record<string, string>;
  };
  const platform = ({ architecture }: { architecture: string }, os = "linux") => ({ architecture, os });
  const ways: readonly (readonly [string, Way])[] = [
    ["the entry's annotation", (_wish, words) => ({
      entry: { platform: platform(words), annotations: { variant: words.variant } },
    })],
    ["the entry's annotations, the architecture too", (_wish, words) => ({
      entry: { annotations: { architecture: words.architecture, variant: words.variant } },
    })],
    ["platform.variant", (_wish, words) => ({
      entry: { platform: { ...platform(words), variant: words.variant } },
    })],
    ["the canonical name", (_wish, words) => ({
      entry: {
        platform: platform(words, "gardenlinux"),
        annotations: { cname: `${words.feature}-gardener_prod-${words.architecture}-1877.0` },
      },
    })],
    ["the list of features", (_wish, words) => ({
      entry: {
        platform: platform(words, "gardenlinux"),
        annotations: { feature_set: `base,${words.feature},log` },
      },
    })],
    ["the manifest's own annotation", (_wish, words) => ({
      entry: { platform: platform(words) },
      own: { variant: words.variant },
    })],
    ["the manifest's own annotations, the architecture too", (_wish, words) => ({
      entry: {},
      own: { variant: words.variant, architecture: words.architecture },
    })],
    ["the manifest's own canonical name", (_wish, words) => ({
      entry: { platform: platform(words) },
      own: { cname: `${words.feature}-${words.architecture}` },
    })],
  ];
  const ARCHITECTURE_WORDS = {
    amd64: ["amd64", "x86_64", "x64"],
    arm64: ["arm64", "aarch64", "arch64", "v8"],
  } as const;
  const VARIANT_WORDS = {
    virtualization: ["virtualization", "kvm", "vm"],
    metal: ["metal", "baremetal"],
  } as const;
  const FEATURES = { virtualization: "kvm", metal: "metal" } as const;
  const WISHES = [VM, METAL, ARM, { architecture: "arm64", variant: "metal" } as const];

  it.each(ways)("gives the right one for every wish when they are told apart by %s", (_name, way) => {
    fc.assert(fc.property(
      fc.shuffledSubarray(WISHES, { minLength: 4 }),
      fc.nat(),
      (order, seed) => {
        const stated = order.map((wish) => {
          const [architectures, variants] = [
            ARCHITECTURE_WORDS[wish.architecture],
            VARIANT_WORDS[wish.variant],
          ];
          return way(wish, {
            architecture: architectures[seed % architectures.length] ?? "",
            variant: variants[seed % variants.length] ?? "",
            feature: FEATURES[wish.variant],
          });
        });
        const index = indexOf(...stated.map(({ entry }) => descriptorJsonOf({ ...entry })));
        const manifests = new Map(stated.map(({ own }, i) => [digestAt(index, i), own ?? {}]));
        for (const [place, wish] of order.entries()) {
          expect([wish, chosenPlace(index, wish, manifests)]).toEqual([wish, place]);
        }
      },
    ));
  });
});
