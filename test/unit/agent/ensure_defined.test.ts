import { describe, expect, it } from "vitest";

import { sortDevices } from "../../../src/agent/ensure_defined.ts";
import { lastWords } from "../../../src/agent/guest_log.ts";

const around = (devices: string) =>
  `<domain>\n  <name>x</name>\n  <devices>\n${devices}  </devices>\n</domain>\n`;
const disk = (name: string, path: string) =>
  `    <disk type='file'>\n      <source file='${path}'/>\n      <target dev='${name}'/>\n    </disk>\n`;
const usb = "    <controller type='usb' model='none'/>\n";

describe("sortDevices", () => {
  it("sees no difference between two orders of devices", () => {
    const [one, two] = [disk("vda", "/a"), disk("vdb", "/b")];
    expect(sortDevices(around(one + usb + two))).toBe(sortDevices(around(usb + two + one)));
  });

  it("sees what changed inside a device, between devices, and elsewhere", () => {
    const before = sortDevices(around(disk("vda", "/a") + disk("vdb", "/b")));
    for (
      const changed of [
        disk("vda", "/b") + disk("vdb", "/a"),
        disk("vda", "/a"),
        disk("vda", "/a") + disk("vdb", "/c"),
      ]
    ) {
      expect(sortDevices(around(changed))).not.toBe(before);
    }
    expect(sortDevices(around(usb)).replace("<name>x", "<name>y")).not.toBe(sortDevices(around(usb)));
  });

  it("leaves a text alone that is not as libvirt prints it", () => {
    expect(sortDevices("<domain><devices/></domain>")).toBe("<domain><devices/></domain>");
  });
});

describe("lastWords", () => {
  it("leaves out the command that libvirt started, and keeps ten lines", () => {
    const command =
      "2026-01-01: starting up libvirt version: 9.0.0\nPATH=/bin \\\n/usr/bin/qemu \\\n-machine q35 \\\n-msg on\n";
    expect(lastWords(`${command}char device redirected\nqemu: out of memory\n`)).toBe(
      "char device redirected\nqemu: out of memory",
    );
    expect(lastWords(command)).toBe("");
    expect(lastWords(Array.from({ length: 30 }, (_, index) => `line ${index}`).join("\n")).split("\n"))
      .toHaveLength(10);
  });
});
