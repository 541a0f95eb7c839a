import type { DomainDefinition } from "../domain_definition.ts";
import { cdromElements } from "./devices/cdrom.ts";
import { diskElements } from "./devices/disk.ts";
import { bootElement } from "./os.ts";
import { element, renderXml } from "./xml_element.ts";

export const FRAGMENTS = ["os", "disks"] as const;
export type Fragment = (typeof FRAGMENTS)[number];

/**
 * A part of the domain XML, for those who have a domain of their own to put it into: `os` is what boots (kernel,
 * firmware, variable store), `disks` a `devices` element with the disks and the CD-ROM's controller.
 *
 * @throws {ShimError} DOMAIN_INVALID as `renderDomainXml`
 */
export function renderFragment(definition: DomainDefinition, fragment: Fragment): string {
  if (fragment === "os") return renderXml(bootElement(definition));
  return renderXml(element("devices", {}, ...cdromElements(definition), ...diskElements(definition)));
}
