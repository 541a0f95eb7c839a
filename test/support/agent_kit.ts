import { join } from "node:path";
import { type AgentContext, NO_BUDGET } from "../../src/agent/agent_context.ts";
import { cacheUsers } from "../../src/agent/cache_users.ts";
import { BlobAudit } from "../../src/content/blob_audit.ts";
import { Collector } from "../../src/content/collector.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { DerivedDisks } from "../../src/content/derived_disks.ts";
import { KnownAcceleration } from "../../src/agent/known_acceleration.ts";
import { KnownFindings } from "../../src/agent/known_findings.ts";
import { Leases } from "../../src/content/lease.ts";
import { MachineStore } from "../../src/machine/machine_store.ts";
import { Registries } from "../../src/registry/registries.ts";

/** What the use cases are given, over real stores under `directory`; `notes` collects what the user should know. */
export async function openAgent(
  rootDirectory: string,
  { notes = [], ...changes }: Partial<AgentContext> & { notes?: string[] } = {},
): Promise<AgentContext> {
  const content = await ContentStore.open({ rootDirectory, groupId: null });
  const machines = await MachineStore.open({ rootDirectory, groupId: null });
  return {
    content,
    leases: new Leases({ rootDirectory }),
    findings: new KnownFindings(),
    acceleration: new KnownAcceleration(),
    audit: new BlobAudit({ rootDirectory }),
    collector: new Collector({ rootDirectory, users: () => cacheUsers(machines) }),
    cacheBudget: NO_BUDGET,
    derived: new DerivedDisks({ rootDirectory, groupId: null, content }),
    machines,
    rootDirectory,
    registries: new Registries(),
    imageLimits: { maxLayerBytes: Infinity, maxImageBytes: Infinity, maxLayers: Infinity },
    libvirtUri: "test:///default",
    hostArchitecture: "amd64",
    isRoot: false,
    configHome: join(rootDirectory, "no-configuration"),
    note: (message) => notes.push(message),
    ...changes,
  };
}
