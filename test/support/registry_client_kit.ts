import type { RegistryLimits } from "../../src/registry/limits.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";
import { type FaultServer, type Script, startFaultServer } from "./fault_server.ts";

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
