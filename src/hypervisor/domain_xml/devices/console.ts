import type { Architecture } from "../../../image/platform.ts";
import type { DomainDefinition } from "../../domain_definition.ts";
import { element, type XmlElement } from "../xml_element.ts";

/** ttyS0 on amd64, ttyAMA0 on arm64. */
const SERIAL_TARGETS: Readonly<Record<Architecture, string>> = {
  amd64: "isa-serial",
  arm64: "system-serial",
};

/** libvirt takes the console to be the first serial port, seen by another name. */
export function consoleElements({ architecture, consoleLogPath }: DomainDefinition): XmlElement[] {
  return [
    element(
      "serial",
      { type: "pty" },
      element("log", { file: consoleLogPath, append: "on" }),
      element("target", { type: SERIAL_TARGETS[architecture], port: "0" }),
    ),
    element("console", { type: "pty" }, element("target", { type: "serial", port: "0" })),
  ];
}
