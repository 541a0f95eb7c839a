import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderDomainXml } from "../../../src/hypervisor/domain_xml/domain.ts";
import { renderFragment } from "../../../src/hypervisor/domain_xml/fragment.ts";
import { arbitraryDomain } from "./arbitrary_domain.ts";

/** A document's lines without their place in it. */
const lines = (xml: string) => xml.trimEnd().split("\n").map((line) => line.trim());

const copies = { kernelPath: "/own/kernel", initramfsPath: "/own/initramfs" };
const LABEL = '<seclabel model="dac" relabel="no"/>';

describe("renderFragment", () => {
  it("gives of a domain's own XML what boots, without what only means something beside another part", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const whole = lines(renderDomainXml(domain));
      const os = whole.slice(whole.indexOf("<os>"), whole.indexOf("</os>") + 1);
      expect(lines(renderFragment(domain, "os", { copies: null }))).toEqual(
        os.filter((line) => line !== '<smbios mode="sysinfo"/>'),
      );
    }));
  });

  it("gives all of a domain's disks and the CD-ROM's controller, and no other device", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      // In a machine with a TPM the domain's own XML labels each source, as fragments always do
      const whole = lines(renderDomainXml({ ...domain, tpm: domain.keepOwnership }));
      const disks = whole.slice(whole.indexOf("<devices>"), whole.lastIndexOf("</disk>") + 1);
      expect(lines(renderFragment(domain, "disks", { copies }))).toEqual([...disks, "</devices>"]);
    }));
  });

  it("keeps the owner of every file of a disk where root's libvirt would change it, and only there", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const disks = lines(renderFragment(domain, "disks", { copies }));
      const sources = disks.flatMap((line, index) => line.startsWith("<source ") ? [disks[index + 1]] : []);
      expect(sources.length).toBeGreaterThan(0);
      for (const next of sources) expect(next === LABEL).toBe(domain.keepOwnership);
    }));
  });

  it("speaks of the machine's own kernel and initramfs where libvirt would give away shared ones", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const { boot } = domain;
      fc.pre(boot.mode === "kernel");
      const os = lines(renderFragment(domain, "os", { copies }));
      const own = [
        "<kernel>/own/kernel</kernel>",
        ...(boot.initramfsPath === null ? [] : ["<initrd>/own/initramfs</initrd>"]),
      ];
      expect(os.filter((line) => /^<(kernel|initrd)>\/own\//.test(line))).toEqual(
        domain.keepOwnership ? own : [],
      );
    }));
  });
});
