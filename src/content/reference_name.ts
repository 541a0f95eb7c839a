/**
 * The nearest name that image-spec allows as `org.opencontainers.image.ref.name`. Canonical registry
 * references with a host name or an IPv4 address are themselves; in others each offending run becomes one
 * "-", or goes at an edge.
 *
 * Several references may share such a name, so it serves other tools only; our own identity is the exact
 * name.
 *
 * ```
 * ref       ::= component ("/" component)*
 * component ::= alphanum (separator alphanum)*
 * alphanum  ::= [A-Za-z0-9]+
 * separator ::= [-._:@+] | "--"
 * ```
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md#pre-defined-annotation-keys
 */
export function toRefName(reference: string): string {
  const components = reference.split("/").map(toComponent).filter((component) => component !== "");
  return components.join("/") || "image";
}

function toComponent(text: string): string {
  const words = text.split(/([^A-Za-z0-9]+)/);
  // Even places are alphanumeric, and only the first and the last can be empty; odd ones are what separates
  // them.
  const separated = words.map((word, i) => i % 2 === 0 || /^(?:[-._:@+]|--)$/.test(word) ? word : "-");
  if (separated[0] === "") separated.splice(0, 2);
  if (separated.at(-1) === "") separated.splice(-2);
  return separated.join("");
}
