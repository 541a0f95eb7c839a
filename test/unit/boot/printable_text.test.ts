import { describe, expect, it } from "vitest";
import { printableText } from "../../../src/boot/printable_text.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("printableText", () => {
  it.each([
    ["text as it is", "6.1.0 (Größe)", "6.1.0 (Größe)"],
    ["text before what fills the field", "BOOT   \0\0junk", "BOOT"],
    ["several lines", "ID=x\nNAME=y\n", "ID=x\nNAME=y"],
    ["a tab", "a\tb", "a\tb"],
  ])("gives %s", (_name, field, expected) => {
    expect(printableText(bytes(field))).toBe(expected);
  });

  it.each([
    ["nothing", new Uint8Array()],
    ["blanks", bytes("   \0")],
    ["an escape sequence", bytes("a\x1b[2Jb")],
    ["a C1 control character", bytes("a\u009bb")],
    ["a change of direction", bytes("a\u202eb")],
    ["a carriage return", bytes("a\rb")],
    ["broken UTF-8", new Uint8Array([0x61, 0xff])],
  ])("gives null for %s", (_name, field) => {
    expect(printableText(field)).toBeNull();
  });
});
