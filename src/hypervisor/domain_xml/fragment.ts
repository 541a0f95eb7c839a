import type { DomainDefinition } from "../domain_definition.ts";
import { cdromElements } from "./devices/cdrom.ts";
import { diskElements } from "./devices/disk.ts";
import { bootElement } from "./os.ts";
import { fragmentLabelElements } from "./ownership.ts";
import { element, renderXml } from "./xml_element.ts";

export const FRAGMENTS = ["os", "disks"] as const;
export type Fragment = (typeof FRAGMENTS)[number];

/** A machine's own copies of what boots. */
export type BootCopies = { readonly kernelPath: string; readonly initramfsPath: string };

/**
 * A part of the domain XML, for those who have a domain of their own to put it into: `os` is what boots (kernel,
 * firmware, variable store), `disks` a `devices` element with the disks and the CD-ROM's controller.
 *
 * Where ownership is to be kept, each disk's file says so itself. Kernel and initramfs cannot: libvirt gives them to
 * QEMU's user while the guest runs, so `os` speaks of the machine's own copies.
 *
 * @param copies null when there is no machine to have them
 * @throws {ShimError} DOMAIN_INVALID as `renderDomainXml`
 */
export function renderFragment(
  definition: DomainDefinition,
  fragment: Fragment,
  { copies }: { readonly copies: BootCopies | null },
): string {
  if (fragment === "os") return renderXml(bootElement(withCopies(definition, copies)));
  const labels = fragmentLabelElements(definition);
  return renderXml(
    element("devices", {}, ...cdromElements(definition, labels), ...diskElements(definition, labels)),
  );
}

function withCopies(definition: DomainDefinition, copies: BootCopies | null): DomainDefinition {
  const { boot, keepOwnership } = definition;
  if (!keepOwnership || copies === null || boot.mode !== "kernel") return definition;
  const initramfsPath = boot.initramfsPath === null ? null : copies.initramfsPath;
  return { ...definition, boot: { ...boot, kernelPath: copies.kernelPath, initramfsPath } };
}
