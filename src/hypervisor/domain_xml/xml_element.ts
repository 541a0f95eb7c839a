import { ShimError } from "../../errors.ts";

type Attributes = Readonly<Record<string, string>>;

/** An element holds other elements or one text, never both: libvirt has no mixed content, and indenting would change it. */
export type XmlElement = {
  readonly name: string;
  readonly attributes: Attributes;
  readonly content: string | readonly XmlElement[];
};

/** Names come from our own sources, never from outside; attributes keep the order they are written in. */
export function element(name: string, attributes: Attributes = {}, ...children: XmlElement[]): XmlElement {
  return { name, attributes, content: children };
}

/** An element with text in it, exactly as it is. */
export function textElement(name: string, text: string, attributes: Attributes = {}): XmlElement {
  return { name, attributes, content: text };
}

/** All that is not a Char of XML 1.0 (fifth edition, section 2.2): not even a character reference can carry it. */
const NOT_XML_CHAR = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u;

/** White space is among them because a parser normalises it when it stands bare (sections 2.11 and 3.3.3). */
const REFERENCES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
  "\t": "&#9;",
  "\n": "&#10;",
  "\r": "&#13;",
};

/**
 * Renders a document that a parser reads back to exactly the same elements, attributes and text.
 *
 * Our own few lines, because fast-xml-parser's builder leaves white space bare and its documented options cannot change
 * that, gathers elements of one name unless told otherwise, and drops an attribute's value when it is "true".
 *
 * @throws {ShimError} DOMAIN_INVALID for text with a character that XML cannot carry
 */
export function renderXml(root: XmlElement): string {
  return `${renderElement(root, "")}\n`;
}

function renderElement({ name, attributes, content }: XmlElement, indent: string): string {
  const attributeText = Object.entries(attributes).map(([key, value]) => ` ${key}="${escape(value)}"`).join(
    "",
  );
  const start = `${indent}<${name}${attributeText}`;
  if (content.length === 0) return `${start}/>`;
  if (typeof content === "string") return `${start}>${escape(content)}</${name}>`;
  const children = content.map((child) => renderElement(child, `${indent}  `)).join("\n");
  return `${start}>\n${children}\n${indent}</${name}>`;
}

/** The only place where text becomes XML. */
function escape(text: string): string {
  if (NOT_XML_CHAR.test(text)) {
    throw new ShimError(
      "DOMAIN_INVALID",
      `Cannot write domain XML: text ${JSON.stringify(text)} holds a character that XML 1.0 cannot carry`,
    );
  }
  return text.replace(/[&<>"'\t\n\r]/g, (character) => REFERENCES[character] ?? character);
}
