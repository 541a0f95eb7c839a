import { ShimError } from "../errors.ts";
import { type Digest, parseDigest } from "./digest.ts";

/** An image in a registry: `[docker://]HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`. */
export type RegistryReference = {
  readonly transport: "docker";
  /** Host in lower case, with the port when one was given: `127.0.0.1:5000`, `[::1]:5000`, `registry.example.org`. */
  readonly host: string;
  readonly repository: string;
  readonly tag: string;
  readonly digest?: Digest;
};

/** An image in an OCI image layout folder: `oci:DIR[:TAG|@DIGEST]`. */
export type LayoutReference = {
  readonly transport: "oci";
  /** As given; the command line makes it absolute. */
  readonly directory: string;
  readonly tag: string;
  readonly digest?: Digest;
};

export type Reference = RegistryReference | LayoutReference;

const MAX_LENGTH = 4096;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
/** distribution-spec: one path component. Linear: each separator is followed by at least one alphanumeric. */
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
/** Tested before the host is put into lower case: that would make ASCII of the Kelvin sign. */
const HOST =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$/i;
const MAX_PORT = 65535;
const MAX_REPOSITORY_LENGTH = 255;
/** What another tool, or this one, reads as a transport when it stands before a colon. */
const TRANSPORT_WORD = /^(?:oci|oci-archive|docker-archive|dir|containers-storage)(?=:)/;
/** What stands after the `@` of a layout reference, if it is meant as a digest; a folder's name may hold an `@` too. */
const DIGEST_LIKE = /^(?:sha256|sha512)(?:$|:[^/]*$)|^[a-z0-9]+:[A-Za-z0-9=_-]{32,}$/;

/** `[SCHEME://]USER[:PASSWORD]@` before a host. References hold no such thing; what people write is not to be repeated. */
const CREDENTIALS = /^((?:[a-z]+:\/\/)?)[^/]*@(?=[^/@]*\/)/;

function refuse(text: string, why: string, options: { remedy: string; cause?: unknown }): never {
  const shown = (text.startsWith("oci:") ? text : text.replace(CREDENTIALS, "$1***@")).slice(0, 200);
  const { remedy, ...cause } = options;
  throw new ShimError("REFERENCE_INVALID", `Cannot read reference ${JSON.stringify(shown)}: ${why}`, {
    ...cause,
    details: { remedy },
  });
}

/**
 * Reads a reference. No I/O: what is refused here never reaches a registry or a disk.
 *
 * With tag and digest, the digest decides and the tag is a label. Without either, the tag is `latest`.
 *
 * @throws {ShimError} REFERENCE_INVALID
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
 */
export function parseReference(text: string): Reference {
  if (text.length > MAX_LENGTH) {
    refuse(text, `it has ${text.length} characters, at most ${MAX_LENGTH} are read`, {
      remedy: "shorten it",
    });
  }
  if (/\p{Cc}/u.test(text)) {
    refuse(text, "it holds a control character", { remedy: "write it in printable characters" });
  }
  if (text.startsWith("oci:")) return parseLayout(text, text.slice("oci:".length));
  if (text.startsWith("docker://")) return parseRegistry(text, text.slice("docker://".length));
  const scheme = /^[a-z][a-z0-9+-]*(?=:\/\/|:\/)/.exec(text)?.[0] ?? TRANSPORT_WORD.exec(text)?.[0];
  if (scheme) {
    refuse(text, `"${scheme}:" is not a place bootshim reads from`, {
      remedy: 'use "docker://HOST/REPOSITORY:TAG" or "oci:DIR:TAG"',
    });
  }
  return parseRegistry(text, text);
}

function parseLayout(text: string, rest: string): LayoutReference {
  const at = rest.lastIndexOf("@");
  if (at !== -1 && DIGEST_LIKE.test(rest.slice(at + 1))) {
    return {
      transport: "oci",
      directory: requireDirectory(text, rest.slice(0, at)),
      tag: "latest",
      digest: readDigest(text, rest.slice(at + 1)),
    };
  }
  const colon = rest.lastIndexOf(":");
  // A colon before a slash belongs to the path.
  if (colon === -1 || rest.indexOf("/", colon) !== -1) {
    return { transport: "oci", directory: requireDirectory(text, rest), tag: "latest" };
  }
  return {
    transport: "oci",
    directory: requireDirectory(text, rest.slice(0, colon)),
    tag: requireTag(text, rest.slice(colon + 1)),
  };
}

function requireDirectory(text: string, directory: string): string {
  if (directory === "") refuse(text, "no folder is named", { remedy: 'write "oci:DIR:TAG"' });
  return directory;
}

function requireTag(text: string, tag: string): string {
  if (!TAG.test(tag)) {
    refuse(text, `the tag ${JSON.stringify(tag)} is not valid`, {
      remedy: "a tag is up to 128 letters, digits, '.', '_' and '-'",
    });
  }
  return tag;
}

function parseRegistry(text: string, rest: string): RegistryReference {
  if (CREDENTIALS.test(rest)) {
    refuse(text, "it holds a user name", { remedy: "write HOST/REPOSITORY without user and password" });
  }
  const at = rest.indexOf("@");
  let name = at === -1 ? rest : rest.slice(0, at);
  const digest = at === -1 ? undefined : readDigest(text, rest.slice(at + 1));
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isHost = first === "localhost" || first.startsWith("[") || /[.:]/.test(first);
  if (!isHost) {
    const hint = name === "" ? "HOST/REPOSITORY" : `docker.io/${slash === -1 ? "library/" : ""}${name}`;
    refuse(text, "it names no registry host", { remedy: `write the full name, for example "${hint}"` });
  }
  const host = HOST.exec(first);
  const port = Number(host?.[1] ?? 1);
  if (!host || port < 1 || port > MAX_PORT) {
    refuse(text, `${JSON.stringify(first)} is not a host name`, {
      remedy: 'write "HOST[:PORT]/REPOSITORY:TAG"',
    });
  }
  name = name.slice(slash + 1);
  const colon = name.lastIndexOf(":");
  const tag = colon === -1 ? "latest" : requireTag(text, name.slice(colon + 1));
  const repository = colon === -1 ? name : name.slice(0, colon);
  if (
    repository.length > MAX_REPOSITORY_LENGTH ||
    !repository.split("/").every((component) => COMPONENT.test(component))
  ) {
    refuse(text, `the repository ${JSON.stringify(repository)} is not valid`, {
      remedy: "a repository is lower-case letters, digits, '.', '_', '-' and '/'",
    });
  }
  return { transport: "docker", host: first.toLowerCase(), repository, tag, ...(digest ? { digest } : {}) };
}

function readDigest(text: string, digest: string): Digest {
  try {
    return parseDigest(digest);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    refuse(text, why, {
      cause: error,
      remedy: "copy the digest from `bootshim images` or `bootshim inspect`",
    });
  }
}

/**
 * The one spelling of a reference: the cache knows an image by it, and {@link parseReference} reads it back. A registry
 * reference carries no `docker://`, unless its host would read as another transport.
 */
export function formatReference(reference: Reference): string {
  if (reference.transport === "docker") {
    const { host, repository, tag, digest } = reference;
    const name = `${TRANSPORT_WORD.test(host) ? "docker://" : ""}${host}/${repository}`;
    return digest ? `${name}@${digest}` : `${name}:${tag}`;
  }
  return reference.digest
    ? `oci:${reference.directory}@${reference.digest}`
    : `oci:${reference.directory}:${reference.tag}`;
}
