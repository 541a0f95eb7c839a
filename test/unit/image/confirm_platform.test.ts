import { describe, expect, it } from "vitest";
import type { Annotations } from "../../../src/image/offer.ts";
import { confirmPlatform, loneOffer } from "../../../src/image/select_manifest.ts";
import { amd64, arm64, choose, digestAt, indexOf, VM } from "../../support/choose_manifest.ts";
import { manifestDocument, manifestJsonOf } from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

describe("confirmPlatform", () => {
  const { descriptor } = manifestDocument(manifestJsonOf());
  const lone = loneOffer(descriptor);
  const confirm = (inside: { annotations: Annotations; architecture: string | undefined }, chosen = lone) =>
    confirmPlatform(chosen, VM, { ...inside, offers: [chosen] });

  it.each([
    ["nothing", {}, undefined, undefined, undefined],
    ["the architecture in the configuration", {}, "x86_64", "amd64", undefined],
    [
      "the architecture and variant in annotations",
      { architecture: "amd64", variant: "kvm" },
      undefined,
      "amd64",
      "virtualization",
    ],
    [
      "an architecture in annotations, before the configuration's",
      { architecture: "amd64" },
      "arm64",
      "amd64",
      undefined,
    ],
    ["the variant in cname", { cname: "kvm-amd64" }, "amd64", "amd64", "virtualization"],
    ["an empty architecture", { architecture: "" }, "", undefined, undefined],
  ])("accepts a lone manifest that states %s", (_name, annotations, architecture, read, variant) => {
    expect(confirm({ annotations, architecture })).toEqual({
      descriptor,
      architecture: read,
      architectureWord: (annotations as Record<string, string>)["architecture"] || architecture || undefined,
      os: undefined,
      variant,
    });
  });

  it.each([
    ["another architecture in the configuration", {}, "arm64", "arm64/unstated", {
      architecture: "arm64",
      variant: null,
    }],
    ["another architecture in annotations", { architecture: "v8" }, "amd64", "arm64/unstated", {
      architecture: "arm64",
      variant: null,
    }],
    ["an architecture that nobody boots", {}, "s390x", "s390x/unstated", {
      architecture: "s390x",
      variant: null,
    }],
    ["another variant", { variant: "metal" }, "amd64", "amd64/metal", {
      architecture: "amd64",
      variant: "metal",
    }],
    ["a cloud's flavour", { cname: "aws-amd64" }, undefined, "any/other", {
      architecture: null,
      variant: "other",
    }],
  ])("refuses a lone manifest that states %s", (_name, annotations, architecture, list, offered) => {
    expect(refusalOf(() => confirm({ annotations, architecture }))).toEqual({
      code: "PLATFORM_NOT_FOUND",
      message: `Cannot choose a manifest: wanted amd64/virtualization, the image offers ${list}`,
      details: {
        offered: [{ os: null, digest: descriptor.digest, ...offered }],
        remedy: "choose one of the offered with --arch and --variant",
      },
    });
  });

  it("HM17 refuses a lone manifest whose place in a layout states another platform", () => {
    const chosen = loneOffer({ ...descriptor, platform: { architecture: "arm64", os: "linux" } });
    expect(refusalOf(() => confirm({ annotations: {}, architecture: undefined }, chosen))).toMatchObject({
      code: "PLATFORM_NOT_FOUND",
      details: { offered: [{ architecture: "arm64", os: "linux", variant: null }] },
    });
  });

  it("HM17 refuses an entry's manifest that says it is for another architecture, and lists what there is", () => {
    const index = indexOf(amd64({ variant: "kvm" }), arm64({ variant: "kvm" }));
    const { offer, survey } = choose(index, VM);
    const inside = { annotations: {}, architecture: "arm64", offers: survey.manifests };
    expect(refusalOf(() => confirmPlatform(offer, VM, inside))).toMatchObject({
      code: "PLATFORM_NOT_FOUND",
      details: {
        offered: [
          { architecture: "arm64", os: "linux", variant: "virtualization", digest: digestAt(index, 0) },
          { architecture: "arm64", os: "linux", variant: "virtualization", digest: digestAt(index, 1) },
        ],
      },
    });
  });

  it("lets the entry's word for the variant stand", () => {
    const { offer } = choose(indexOf(amd64({ variant: "kvm" })), VM);
    expect(confirm({ annotations: { variant: "metal" }, architecture: undefined }, offer)).toEqual(offer);
  });
});
