import { dirname, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import type { Place, Places } from "../registry/mirror/place.ts";
import type { TlsFiles } from "../registry/network/tls_trust.ts";

const oneOrMore = z.union([z.string().transform((each) => [each]), z.array(z.string())]);

/** What is said of each place. Keys that are not ours to know are passed over: the format is containerd's. */
const placeSchema = z.object({
  capabilities: z.array(z.string()).default(["pull", "resolve", "push"]),
  override_path: z.boolean().default(false),
  skip_verify: z.boolean().default(false),
  ca: oneOrMore.default([]),
  client: z.union([z.string(), z.array(z.union([z.string(), z.array(z.string())]))]).optional(),
  header: z.record(
    z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, "is no header's name"),
    oneOrMore,
  ).default({}),
});

const fileSchema = placeSchema.extend({
  server: z.string().optional(),
  host: z.record(z.string(), placeSchema).default({}),
});

/** What the protocol itself decides. */
const RESERVED_HEADERS =
  /^(?:host|connection|content-.*|transfer-encoding|te|upgrade|range|accept|accept-encoding|proxy-.*)$/;

/**
 * Reads a `hosts.toml` as containerd knows it.
 *
 * @param path for messages, and for what the file names relative to itself
 * @throws {ShimError} CONFIG_INVALID
 * @see https://github.com/containerd/containerd/blob/main/docs/hosts.md
 */
export function parseHostsFile(text: string, path: string): Places {
  const file = readToml(text, path);
  const tls = tlsFilesOf(file, path);
  return {
    mirrors: Object.entries(file.host).map(([url, place]) => placeOf(url, place, path)),
    ...(file.server === undefined ? {} : { server: placeOf(file.server, file, path) }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function readToml(text: string, path: string): z.infer<typeof fileSchema> {
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `line ${error.line}: ` : "";
    const why = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new ShimError("CONFIG_INVALID", `Cannot read "${path}": ${where}${why}`, { cause: error });
  }
  const result = fileSchema.safeParse(document);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  refuse(path, `key "${issue?.path.map(String).join(".")}", ${issue?.message ?? "is not valid"}`);
}

function placeOf(url: string, place: z.infer<typeof placeSchema>, path: string): Place {
  const baseUrl = readPlaceUrl(url, { source: `"${path}"`, isWholePath: place.override_path });
  if (place.skip_verify && baseUrl.protocol === "https:") {
    refuse(
      path,
      `skip_verify is set for "${baseUrl.host}", TLS is always verified`,
      "name its authority with ca, or write http:// for a place that needs no TLS",
    );
  }
  const tls = tlsFilesOf(place, path);
  return {
    baseUrl,
    pulls: place.capabilities.includes("pull"),
    resolves: place.capabilities.includes("resolve"),
    headers: headersOf(place.header, path),
    ...(tls === undefined ? {} : { tls }),
  };
}

function headersOf(
  header: z.infer<typeof placeSchema>["header"],
  path: string,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(header).map(([name, values]) => {
      const value = values.join(", ");
      if (RESERVED_HEADERS.test(name.toLowerCase())) {
        refuse(path, `header "${name}" is not the user's to set`);
      }
      if (!/^[\x20-\x7e\t]*$/.test(value)) refuse(path, `header "${name}" holds what no header can`);
      return [name.toLowerCase(), value];
    }),
  );
}

function tlsFilesOf(
  { ca, client }: Pick<z.infer<typeof placeSchema>, "ca" | "client">,
  path: string,
): TlsFiles | undefined {
  const near = (file: string) => resolve(dirname(path), file);
  const pairs = client === undefined ? [] : typeof client === "string" ? [client] : client;
  if (pairs.length > 1) refuse(path, "it names several client certificates for one host, one is used");
  const [certificate, key = certificate] = [pairs[0] ?? []].flat();
  if (ca.length === 0 && certificate === undefined) return undefined;
  return {
    authorities: ca.map(near),
    ...(certificate === undefined || key === undefined
      ? {}
      : { client: { certificate: near(certificate), key: near(key) } }),
  };
}

/**
 * Where a place's repositories begin.
 *
 * @param isWholePath whether the URL's path stands instead of `/v2`, and not before it
 * @throws {ShimError} CONFIG_INVALID; without the URL when it holds a password
 */
export function readPlaceUrl(
  text: string,
  { source, isWholePath = false }: { readonly source: string; readonly isWholePath?: boolean },
): URL {
  const full = text.includes("://") ? text : `https://${text}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  const isPlace = (url?.protocol === "https:" || url?.protocol === "http:") &&
    url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  if (url === undefined || !isPlace) {
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot use ${source}: a place must be http(s)://HOST[:PORT][/PATH], without user and query`,
    );
  }
  const path = url.pathname.replace(/\/+$/, "");
  return new URL(`${isWholePath || path.endsWith("/v2") ? path : `${path}/v2`}/`, url);
}

function refuse(path: string, why: string, remedy?: string): never {
  throw new ShimError("CONFIG_INVALID", `Cannot use "${path}": ${why}`, {
    details: { path, ...(remedy === undefined ? {} : { remedy }) },
  });
}
