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
  /** What the layout calls the image: a tag, or a whole reference such as `127.0.0.1:5000/os/demo:1`. */
  readonly tag: string;
  readonly digest?: Digest;
};

/** An image in a tar archive of an OCI image layout: `oci-archive:FILE[:TAG|@DIGEST]`. */
export type ArchiveReference = {
  readonly transport: "oci-archive";
  /** As given; the command line makes it absolute. */
  readonly file: string;
  /** As in {@link LayoutReference}. */
  readonly tag: string;
  readonly digest?: Digest;
};

export type Reference = RegistryReference | LayoutReference | ArchiveReference;

/** A whole image layout, where images are exported to and imported from: `oci:DIR` or `oci-archive:FILE`. */
export type LayoutLocation = { readonly transport: "oci" | "oci-archive"; readonly path: string };

const MAX_LENGTH = 4096;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
/** distribution-spec: one path component. Linear: each separator is followed by at least one alphanumeric. */
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
/** Tested before the host is put into lower case: that would make ASCII of the Kelvin sign. */
const HOST =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$/i;
const MAX_PORT = 65535;
const MAX_REPOSITORY_LENGTH = 255;
/** What image-spec allows as `org.opencontainers.image.ref.name`. Linear: a separator never starts a word. */
const REF_NAME = new RegExp(
  "^#(?:/#)*$".replaceAll("#", "[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"),
);
/** What another tool, or this one, reads as a transport when it stands before a colon. */
const TRANSPORT_WORD = /^(?:oci|oci-archive|docker-archive|dir|containers-storage)(?=:)/;
/** What stands after the `@` of a layout reference, if it is meant as a digest; a folder's name may hold an `@` too. */
const DIGEST_LIKE = /^(?:sha256|sha512)(?:$|:[^/]*$)|^[a-z0-9]+:[A-Za-z0-9=_-]{32,}$/;

/** `[SCHEME://]USER[:PASSWORD]@` before a host. References hold no such thing; what people write is not to be repeated. */
const CREDENTIALS = /^((?:[a-z]+:\/\/)?)[^/]*@(?=[^/@]*\/)/;

function refuse(text: string, why: string, options: { remedy: string; cause?: unknown }): never {
  const shown = (/^oci(?:-archive)?:/.test(text) ? text : text.replace(CREDENTIALS, "$1***@")).slice(0, 200);
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
  // `oci-archive://` is somebody else's idea of a URL, and no file is called `//h.io/os:1`.
  const layout = /^(oci|oci-archive):(?!\/\/)/.exec(text);
  if (layout) return parseLayout(text, layout[1] === "oci" ? "oci" : "oci-archive");
  if (text.startsWith("docker://")) return parseRegistry(text, text.slice("docker://".length));
  const scheme = /^[a-z][a-z0-9+-]*(?=:\/\/|:\/)/.exec(text)?.[0] ?? TRANSPORT_WORD.exec(text)?.[0];
  if (scheme) {
    refuse(text, `"${scheme}:" is not a place bootshim reads from`, {
      remedy: 'use "docker://HOST/REPOSITORY:TAG", "oci:DIR:TAG" or "oci-archive:FILE:TAG"',
    });
  }
  return parseRegistry(text, text);
}

/**
 * Reads where a whole image layout is, or is to be. No image in it is named.
 *
 * @throws {ShimError} REFERENCE_INVALID
 */
export function parseLayoutLocation(text: string): LayoutLocation {
  const remedy = 'write "oci-archive:FILE" or "oci:DIR"';
  const [word = "", path = ""] = text.split(/:(.*)/s);
  if ((word !== "oci" && word !== "oci-archive") || path === "") {
    refuse(text, "it names no image layout", { remedy });
  }
  if (/\p{Cc}/u.test(path)) refuse(text, "it holds a control character", { remedy });
  if (path.includes(":") || DIGEST_LIKE.test(path.slice(path.lastIndexOf("@") + 1))) {
    refuse(text, "it names one image, must name the whole layout", { remedy });
  }
  return { transport: word, path };
}

/** Like skopeo, which also takes everything after the first colon for the image's name: no path holds a colon. */
function parseLayout(text: string, transport: "oci" | "oci-archive"): LayoutReference | ArchiveReference {
  const rest = text.slice(transport.length + 1);
  const at = rest.lastIndexOf("@");
  const hasDigest = at !== -1 && DIGEST_LIKE.test(rest.slice(at + 1));
  const [path = "", name] = (hasDigest ? rest.slice(0, at) : rest).split(/:(.*)/s);
  if (path === "") {
    refuse(text, transport === "oci" ? "no folder is named" : "no file is named", {
      remedy: transport === "oci" ? 'write "oci:DIR:TAG"' : 'write "oci-archive:FILE:TAG"',
    });
  }
  const image = {
    tag: name === undefined ? "latest" : requireLayoutName(text, name),
    ...(hasDigest ? { digest: readDigest(text, rest.slice(at + 1)) } : {}),
  };
  return transport === "oci" ? { transport, directory: path, ...image } : { transport, file: path, ...image };
}

function requireLayoutName(text: string, name: string): string {
  if (/^sha(?:256|512):/.test(name)) {
    refuse(text, "a digest stands where a tag does", { remedy: "write @ before the digest" });
  }
  return isLayoutName(name) ? name : requireTag(text, name);
}

/** Whether a layout may call an image so: a tag, or a whole reference. A digest is no name. */
export function isLayoutName(text: string): boolean {
  return TAG.test(text) || (REF_NAME.test(text) && !/^sha(?:256|512):/.test(text));
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
  const path = reference.transport === "oci" ? reference.directory : reference.file;
  return reference.digest
    ? `${reference.transport}:${path}@${reference.digest}`
    : `${reference.transport}:${path}:${reference.tag}`;
}
