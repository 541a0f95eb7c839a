import type { DomainDefinition } from "../domain_definition.ts";
import { element, textElement, type XmlElement } from "./xml_element.ts";

/** What the guest finds in its SMBIOS tables and in fw_cfg: whose machine it is, and its Ignition configuration. */
export function sysinfoElements({ name, ignitionPath }: DomainDefinition): XmlElement[] {
  return [
    element(
      "sysinfo",
      { type: "smbios" },
      element("system", {}, textElement("entry", name, { name: "serial" })),
    ),
    ...(ignitionPath === null ? [] : [
      element(
        "sysinfo",
        { type: "fwcfg" },
        element("entry", { name: "opt/com.coreos/config", file: ignitionPath }),
      ),
    ]),
  ];
}
