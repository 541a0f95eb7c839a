import { randomBytes } from "node:crypto";
import { ShimError } from "../../src/errors.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { hashBytes } from "../../src/image/verification.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import type { RegistryLimits } from "../../src/registry/limits.ts";
import { type FaultServer, type Script, startFaultServer } from "./fault_server.ts";

/** Bytes that nobody can have guessed, and their true descriptor. */
export function randomBlob(
  sizeBytes: number,
): { readonly bytes: Uint8Array; readonly descriptor: Descriptor } {
  const bytes = new Uint8Array(randomBytes(sizeBytes));
  return { bytes, descriptor: describeBytes(bytes, "application/octet-stream") };
}

/** A manifest that no other test has, and its true descriptor. */
export function randomManifest(): { readonly bytes: Uint8Array; readonly descriptor: Descriptor } {
  const annotations = { "org.example.random": randomBytes(16).toString("hex") };
  const bytes = new TextEncoder().encode(
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: {}, layers: [], annotations }),
  );
  return { bytes, descriptor: describeBytes(bytes, OCI_MANIFEST) };
}

export function describeBytes(bytes: Uint8Array, mediaType: string): Descriptor {
  return { mediaType, digest: hashBytes(bytes), sizeBytes: bytes.length, annotations: {} };
}

/** Waits as short as a test can stand; the numbers of attempts are the real ones. */
export const QUICK: Partial<RegistryLimits> = {
  connectTimeoutMs: 400,
  headersTimeoutMs: 400,
  stallTimeoutMs: 400,
  backoffMs: 5,
};

export type Rig = { readonly server: FaultServer; readonly client: RegistryClient };

/** Runs `body` with a scripted registry and a client of its repository `os/demo`; closes both whatever happens. */
export async function withRegistry(
  script: Script,
  body: (rig: Rig) => Promise<void>,
  limits: Partial<RegistryLimits> = {},
): Promise<void> {
  const server = await startFaultServer(script);
  const client = new RegistryClient({
    host: server.host,
    repository: "os/demo",
    limits: { ...QUICK, ...limits },
  });
  try {
    await body({ server, client });
  } finally {
    await client.close();
    await server.stop();
  }
}

/** The ShimError a promise must reject with. Anything else fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<ShimError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ShimError) return error;
    throw error;
  }
  throw new Error("Expected a failure, but the promise was fulfilled");
}

/** Opens and reads all bytes; a failure may come at either. */
export async function collect(opened: Promise<ReadableStream<Uint8Array>>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = (await opened).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}

export function streamOf(...chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}
