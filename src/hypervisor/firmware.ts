import { z } from "zod";
import type { Architecture } from "../image/platform.ts";
import type { FirmwareFormat } from "./domain_definition.ts";

const fileSchema = z.object({ filename: z.string(), format: z.string() });

/**
 * What we read of one file in `/usr/share/qemu/firmware` or `/etc/qemu/firmware`; fields we do not know are ignored.
 *
 * @see https://gitlab.com/qemu-project/qemu/-/blob/v9.0.0/docs/interop/firmware.json
 */
export const firmwareDescriptorSchema = z.object({
  description: z.string().default("no description"),
  "interface-types": z.array(z.string()),
  mapping: z.object({
    device: z.string(),
    mode: z.string().default("split"),
    executable: fileSchema.optional(),
    "nvram-template": fileSchema.optional(),
  }),
  targets: z.array(z.object({ architecture: z.string(), machines: z.array(z.string()) })),
  features: z.array(z.string()),
});

export type FirmwareDescriptor = z.infer<typeof firmwareDescriptorSchema>;

/** The host's files for UEFI: code to map read-only, and the variable store to copy for each machine. */
export type UefiFirmwareFiles = {
  readonly loaderPath: string;
  readonly loaderFormat: FirmwareFormat;
  readonly nvramTemplatePath: string;
  readonly nvramTemplateFormat: FirmwareFormat;
  /** Signatures are checked, against the keys that the template brings. */
  readonly secureBoot: boolean;
};

/** The firmware, or why there is none. */
export type UefiFirmwareChoice =
  | { readonly firmware: UefiFirmwareFiles }
  | { readonly firmware: null; readonly reason: string };

/**
 * Descriptors name concrete machine types, we ask for the aliases "q35" and "virt". Only QEMU knows which version an
 * alias stands for, and descriptors pattern the version away ("pc-q35-*"), so any one version answers for all.
 */
const TARGETS: Readonly<Record<Architecture, { readonly architecture: string; readonly machine: string }>> = {
  amd64: { architecture: "x86_64", machine: "pc-q35-7.2" },
  arm64: { architecture: "aarch64", machine: "virt-7.2" },
};

/** Secure Boot refuses unsigned images, so who does not ask for it gets none of its features. */
const SECURE_FEATURES = ["secure-boot", "requires-smm", "enrolled-keys"];
/** Without keys in its variable store the firmware starts in setup mode, in which nothing is checked. */
const NEEDED_FEATURES = ["secure-boot", "enrolled-keys"];

/**
 * Chooses the first UEFI firmware with a variable store of its own: a plain one, or one that enforces Secure Boot.
 *
 * @param descriptors by priority: in order of file name, `/etc` taking the place of files of the same name in `/usr/share`
 * @returns `firmware: null` with a reason that speaks of every descriptor when none will do
 */
export function chooseUefiFirmware(
  descriptors: readonly FirmwareDescriptor[],
  { architecture, secureBoot = false }: {
    readonly architecture: Architecture;
    readonly secureBoot?: boolean;
  },
): UefiFirmwareChoice {
  const refusals: string[] = [];
  for (const descriptor of descriptors) {
    const verdict = judge(descriptor, { architecture, secureBoot });
    if (typeof verdict !== "string") return { firmware: verdict };
    refusals.push(`${JSON.stringify(descriptor.description)} ${verdict}`);
  }
  const reason = refusals.length === 0 ? "the host describes no firmware" : refusals.join("; ");
  return { firmware: null, reason };
}

function judge(
  descriptor: FirmwareDescriptor,
  { architecture, secureBoot }: { readonly architecture: Architecture; readonly secureBoot: boolean },
): UefiFirmwareFiles | string {
  if (!descriptor["interface-types"].includes("uefi")) return "is not UEFI";
  const target = TARGETS[architecture];
  const fits = descriptor.targets.some((offered) =>
    offered.architecture === target.architecture &&
    offered.machines.some((pattern) => matchesGlob(target.machine, pattern))
  );
  if (!fits) return `is not for ${target.machine} on ${target.architecture}`;
  const has = (feature: string) => descriptor.features.includes(feature);
  const missing = NEEDED_FEATURES.filter((feature) => secureBoot && !has(feature));
  if (missing.length > 0) return `lacks ${missing.join(", ")}`;
  const unwanted = SECURE_FEATURES.filter((feature) => !secureBoot && has(feature));
  if (unwanted.length > 0) return `has ${unwanted.join(", ")}`;
  const { device, mode, executable, "nvram-template": template } = descriptor.mapping;
  if (device !== "flash" || mode !== "split" || !executable || !template) {
    return "is not a flash image with a variable store";
  }
  if (!isFirmwareFormat(executable.format) || !isFirmwareFormat(template.format)) {
    return "is neither raw nor qcow2";
  }
  return {
    loaderPath: executable.filename,
    loaderFormat: executable.format,
    nvramTemplatePath: template.filename,
    nvramTemplateFormat: template.format,
    secureBoot,
  };
}

function isFirmwareFormat(format: string): format is FirmwareFormat {
  return format === "raw" || format === "qcow2";
}

/** fnmatch(3) with `*` and `?`; a bracket stands for itself, as no descriptor uses sets. */
function matchesGlob(text: string, pattern: string): boolean {
  const source = pattern.replace(/[\\^$.|+()[\]{}]/g, "\\$&").replace(/\*+/g, ".*").replaceAll("?", ".");
  return new RegExp(`^${source}$`, "s").test(text);
}
