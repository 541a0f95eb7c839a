import { XMLParser } from "fast-xml-parser";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderDomainXml } from "../../../src/hypervisor/domain_xml/domain.ts";
import {
  element,
  renderXml,
  textElement,
  type XmlElement,
} from "../../../src/hypervisor/domain_xml/xml_element.ts";
import { arbitraryDomain } from "./arbitrary_domain.ts";

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: "",
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  htmlEntities: true,
  processEntities: { enabled: true, maxTotalExpansions: 1_000_000, maxExpandedLength: 10_000_000 },
});

/** The parser's tree as ours; the white space between elements is the renderer's own indenting. */
function read(node: Record<string, unknown>): XmlElement {
  const name = Object.keys(node).find((key) => key !== ":@")!;
  const attributes = { ...(node[":@"] as Record<string, string> | undefined) };
  const nodes = node[name] as Record<string, unknown>[];
  const children = nodes.filter((child) => !("#text" in child));
  if (children.length > 0 || nodes.length === 0) return element(name, attributes, ...children.map(read));
  return textElement(name, nodes.map((child) => String(child["#text"])).join(""), attributes);
}

function parse(xml: string): XmlElement {
  return read(parser.parse(xml)[0]);
}

/** Any text that XML 1.0 can carry, rich in what it escapes. */
const xmlText = fc.array(
  fc.oneof(
    fc.constantFrom(
      "<",
      ">",
      "&",
      "'",
      '"',
      "]]>",
      "&amp;",
      "&#10;",
      "<!--",
      "<![CDATA[",
      "\t",
      "\n",
      "\r",
      "\u007f",
      "\u0085",
      " ",
    ),
    fc.string({ unit: "binary", maxLength: 4 })
      .map((drawn) => drawn.replaceAll(/[\p{Cc}\uFFFE\uFFFF]/gu, "")),
  ),
  { minLength: 1, maxLength: 8 },
).map((pieces) => pieces.join("")).filter((drawn) => drawn !== "");

const name = fc.constantFrom("a", "b", "c");
const attributes = fc.dictionary(fc.constantFrom("x", "y", "z"), xmlText, { noNullPrototype: true });
const tree = fc.letrec<{ node: XmlElement }>((tie) => ({
  node: fc.oneof(
    { depthSize: "small" },
    fc.tuple(name, attributes, xmlText).map(([tag, attribute, text]) => textElement(tag, text, attribute)),
    fc.tuple(name, attributes, fc.array(tie("node"), { maxLength: 4 }))
      .map(([tag, attribute, children]) => element(tag, attribute, ...children)),
  ),
})).node;

describe("renderXml", () => {
  it("HI01 gives what a parser reads back to the same elements, attributes and text", () => {
    fc.assert(
      fc.property(tree, (root) => {
        expect(parse(renderXml(root))).toEqual(root);
      }),
      { numRuns: 500 },
    );
  });

  it.each(["\0", "\u0001", "\u000b", "\u001f", "\ud800", "\udfffx", "\ufffe", "\uffff"])(
    "HI01 refuses %j, which XML cannot carry, in text and attribute",
    (bad) => {
      const refusal = expect.objectContaining({ code: "DOMAIN_INVALID" });
      expect(() => renderXml(textElement("a", `x${bad}y`))).toThrow(refusal);
      expect(() => renderXml(element("a", { x: `x${bad}y` }))).toThrow(refusal);
    },
  );

  it("HI01 carries 10 MB of text", () => {
    const text = "<&]]>'\"é".repeat(1_250_000);
    const xml = renderXml(textElement("a", text));
    expect(xml).toBe(`<a>${"&lt;&amp;]]&gt;&apos;&quot;é".repeat(1_250_000)}</a>\n`);
  });
});

function find(root: XmlElement, wanted: string): XmlElement[] {
  const below = typeof root.content === "string" ? [] : root.content.flatMap((child) => find(child, wanted));
  return root.name === wanted ? [root, ...below] : below;
}

describe("renderDomainXml", () => {
  it("HI02 keeps every value where it belongs", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const xml = renderDomainXml(domain);
      const root = parse(xml);
      expect(Object.keys(root.attributes)).toEqual(["type"]);
      expect(xml).not.toContain("<qemu:");
      expect(find(root, "name")[0]?.content).toBe(domain.name);
      expect(find(root, "source").flatMap(({ attributes }) => attributes["file"] ?? [])).toEqual([
        ...(domain.boot.mode === "iso" ? [domain.boot.isoPath] : []),
        ...domain.disks.flatMap(({ path, backing }) => backing ? [path, backing.path] : [path]),
      ]);
      if (domain.boot.mode !== "kernel") return;
      expect(find(root, "kernel")[0]?.content).toBe(domain.boot.kernelPath);
      expect(find(root, "initrd")[0]?.content ?? null).toBe(domain.boot.initramfsPath);
      expect(find(root, "cmdline")[0]?.content ?? "").toBe(domain.boot.cmdline);
    }));
  });

  it("HD13 HD14 LV13 names every format and closes every backing chain", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const disks = find(parse(renderDomainXml(domain)), "disk")
        .filter(({ attributes }) => attributes["device"] === "disk");
      expect(disks.map((disk) => find(disk, "driver")[0]?.attributes["type"])).toEqual(
        domain.disks.map(({ format }) => format),
      );
      for (const [index, disk] of disks.entries()) {
        const backing = domain.disks[index]?.backing;
        const stores = find(disk, "backingStore");
        expect(stores.at(-1)).toEqual(element("backingStore"));
        expect(stores).toHaveLength(backing ? 2 : 1);
        expect(find(disk, "format").map(({ attributes }) => attributes["type"])).toEqual(
          backing ? [backing.format] : [],
        );
      }
    }));
  });

  it("HD16 attaches an ISO as a CD, raw and read-only, on a controller that firmware and kernels know", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const { boot } = domain;
      const root = parse(renderDomainXml(domain));
      const isIso = boot.mode === "iso";
      expect(find(root, "disk").filter(({ attributes }) => attributes["device"] === "cdrom")).toEqual(
        isIso
          ? [element(
            "disk",
            { type: "file", device: "cdrom" },
            element("driver", { name: "qemu", type: "raw" }),
            element(
              "source",
              { file: boot.isoPath },
              ...(domain.keepOwnership && domain.tpm
                ? [element("seclabel", { model: "dac", relabel: "no" })]
                : []),
            ),
            element("backingStore"),
            element("target", { dev: "sda", bus: "scsi" }),
            element("readonly"),
            element("boot", { order: "1" }),
          )]
          : [],
      );
      expect(find(root, "controller").filter(({ attributes }) => attributes["type"] === "scsi")).toEqual(
        isIso ? [element("controller", { type: "scsi", index: "0", model: "virtio-scsi" })] : [],
      );
    }));
  });

  it("labels ownership only when the domain keeps it", () => {
    fc.assert(fc.property(arbitraryDomain, (domain) => {
      const labels = find(parse(renderDomainXml(domain)), "seclabel");
      const sources = domain.disks.flatMap(({ backing }) => backing ? [0, 1] : [0]).length +
        (domain.boot.mode === "iso" ? 1 : 0);
      expect(labels).toEqual(
        !domain.keepOwnership ? [] : domain.tpm
          // libvirt labels a TPM's socket only when the domain as a whole has no label.
          ? Array.from({ length: sources }, () => element("seclabel", { model: "dac", relabel: "no" }))
          : [element("seclabel", { type: "none", model: "dac" })],
      );
    }));
  });

  it("names firmware formats that are not raw, for libvirt versions that know the attribute", () => {
    const [domain] = fc.sample(arbitraryDomain, 1);
    const firmware = {
      kind: "uefi",
      loaderPath: "/l",
      loaderFormat: "qcow2",
      nvramPath: "/n",
      nvramFormat: "qcow2",
      secureBoot: false,
    } as const;
    const root = parse(renderDomainXml({ ...domain!, boot: { mode: "disk", firmware } }));
    expect(find(root, "loader")).toEqual([
      textElement("loader", "/l", { readonly: "yes", type: "pflash", format: "qcow2" }),
    ]);
    expect(find(root, "nvram")).toEqual([textElement("nvram", "/n", { format: "qcow2" })]);
  });
});
