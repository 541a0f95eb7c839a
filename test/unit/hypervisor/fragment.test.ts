import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderDomainXml } from "../../../src/hypervisor/domain_xml/domain.ts";
import { renderFragment } from "../../../src/hypervisor/domain_xml/fragment.ts";
import { arbitraryDomain } from "./arbitrary_domain.ts";

/** A document's lines without their place in it. */
const lines = (xml: string) => xml.trimEnd().split("\n").map((line) => line.trim());

describe("renderFragment", () => {
  it("gives of a domain's own XML what boots, without what only means something beside another part", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const whole = lines(renderDomainXml(domain));
      const os = whole.slice(whole.indexOf("<os>"), whole.indexOf("</os>") + 1);
      expect(lines(renderFragment(domain, "os"))).toEqual(
        os.filter((line) => line !== '<smbios mode="sysinfo"/>'),
      );
    }));
  });

  it("gives all of a domain's disks and the CD-ROM's controller, and no other device", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const whole = lines(renderDomainXml(domain));
      const disks = whole.slice(whole.indexOf("<devices>"), whole.lastIndexOf("</disk>") + 1);
      expect(lines(renderFragment(domain, "disks"))).toEqual([...disks, "</devices>"]);
    }));
  });
});
