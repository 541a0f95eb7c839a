import { createPrivateKey, X509Certificate } from "node:crypto";
import { open } from "node:fs/promises";
import { createSecureContext, getCACertificates, rootCertificates, type SecureContext } from "node:tls";
import { ShimError } from "../../errors.ts";

/** What one host's TLS needs beyond the system's certificates. Absolute paths of PEM files. */
export type TlsFiles = {
  /** Trusted for this host besides the system's authorities. */
  readonly authorities: readonly string[];
  /** Shown to this host when it asks who we are; never to another. One file may hold both. */
  readonly client?: { readonly certificate: string; readonly key: string };
};

/** A chain and its key, or a distribution's whole bundle, are smaller. */
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * What a connection to one host trusts and shows. Verification cannot be turned off: an insecure host is spoken to in
 * plain HTTP, where nobody takes it for secure.
 *
 * @throws {ShimError} CONFIG_INVALID when a file cannot be read, or is not what it should be
 */
export async function readTlsContext(host: string, files: TlsFiles): Promise<SecureContext> {
  const authorities = await Promise.all(files.authorities.map((path) => readPem(path, "CERTIFICATE")));
  const client = files.client === undefined ? {} : {
    cert: await readPem(files.client.certificate, "CERTIFICATE"),
    key: await readPem(files.client.key, "PRIVATE KEY"),
  };
  try {
    // Not every runtime looks by itself.
    if (
      client.cert !== undefined &&
      !new X509Certificate(client.cert).checkPrivateKey(createPrivateKey(client.key))
    ) throw new Error("the key is another certificate's");
    return createSecureContext({ ca: [...systemAuthorities(), ...authorities], ...client });
  } catch (error) {
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot use the TLS files of "${host}": ${
        error instanceof Error ? error.message.split("\n")[0] : error
      }`,
      { cause: error, details: { remedy: "check that certificate and key belong together" } },
    );
  }
}

/** The system's, as every other program on the host trusts; the runtime's own only on a host that has none. */
export function systemAuthorities(): readonly string[] {
  const system = getCACertificates("system");
  return system.length > 0 ? system : rootCertificates;
}

async function readPem(path: string, kind: "CERTIFICATE" | "PRIVATE KEY"): Promise<string> {
  const text = await readSmallFile(path);
  // `RSA PRIVATE KEY` and `EC PRIVATE KEY` too.
  if (new RegExp(`-----BEGIN (?:[A-Z]+ )*${kind}-----`).test(text)) return text;
  throw new ShimError(
    "CONFIG_INVALID",
    `Cannot use "${path}": it holds no ${kind.toLowerCase()} in PEM form`,
  );
}

async function readSmallFile(path: string): Promise<string> {
  try {
    await using file = await open(path);
    const { buffer, bytesRead } = await file.read({ buffer: new Uint8Array(MAX_FILE_BYTES + 1) });
    if (bytesRead <= MAX_FILE_BYTES) return new TextDecoder().decode(buffer.subarray(0, bytesRead));
  } catch (error) {
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot read "${path}": ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  throw new ShimError("CONFIG_INVALID", `Cannot use "${path}": it is over ${MAX_FILE_BYTES} bytes`);
}
