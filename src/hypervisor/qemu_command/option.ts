/**
 * An option in QEMU's JSON form, in which no character but JSON's own has a meaning.
 * Used for every option that carries text from outside and has that form (-blockdev, -device, -object).
 */
export function jsonOption(option: string, properties: Readonly<Record<string, unknown>>): string[] {
  return [option, JSON.stringify(properties)];
}

/** Text as a value in a `key=value,…` option, where a comma ends the value unless doubled. */
export function optionValue(text: string): string {
  return text.replaceAll(",", ",,");
}
