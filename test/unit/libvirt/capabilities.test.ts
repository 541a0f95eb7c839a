import { describe, expect, it } from "vitest";

import { parseCapabilities, parseDomainCapabilities } from "../../../src/libvirt/capabilities.ts";
import { refusalOf } from "../../support/failures.ts";
import { randomWord } from "../../support/random_word.ts";

describe("parseCapabilities", () => {
  it("reads every guest: one or several of each element, aliases and attributes", () => {
    const word = randomWord();
    const xml = `<capabilities><host><uuid>x</uuid></host>
      <guest><os_type>hvm</os_type><arch name='x86_64'><wordsize>64</wordsize>
        <machine maxCpus='255'>pc-q35-7.2</machine><machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
        <domain type='qemu'/><domain type='kvm'><emulator>/usr/bin/kvm</emulator></domain></arch>
        <features><acpi default='on' toggle='yes'/></features></guest>
      <guest><os_type>hvm</os_type><arch name='aarch64'><machine>${word}</machine><domain type='${word}'/></arch></guest>
      </capabilities>`;
    expect(parseCapabilities(xml)).toEqual([
      { architecture: "x86_64", virtualizationTypes: ["qemu", "kvm"], machineTypes: ["pc-q35-7.2", "q35"] },
      { architecture: "aarch64", virtualizationTypes: [word], machineTypes: [word] },
    ]);
  });

  it("reads a host that runs nothing", () => {
    expect(parseCapabilities("<capabilities><host/></capabilities>")).toEqual([]);
  });

  it.each(["", "<other/>", "<capabilities>", "\0", "<capabilities><guest><arch/></guest></capabilities>"])(
    "LV08 refuses %j",
    (xml) => expect(refusalOf(() => parseCapabilities(xml)).code).toBe("HYPERVISOR_UNAVAILABLE"),
  );
});

describe("parseDomainCapabilities", () => {
  it("reads firmware and CPUs, or their absence", () => {
    const xml =
      `<domainCapabilities><vcpu max='288'/><os supported='yes'><enum name='firmware'><value>efi</value></enum>
      <loader supported='yes'><enum name='type'><value>rom</value></enum></loader></os></domainCapabilities>`;
    expect(parseDomainCapabilities(xml)).toEqual({ firmware: ["efi"], maxCpus: 288 });
    expect(
      parseDomainCapabilities(
        "<domainCapabilities><os supported='yes'><enum name='firmware'/></os></domainCapabilities>",
      ),
    )
      .toEqual({ firmware: [], maxCpus: null });
  });
});
