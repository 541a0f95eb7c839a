/**
 * @module agent: the use cases, one file each. The only place that joins registry, content, machine, qemu and libvirt.
 *
 * May import everything above it in the import order (`src/README.md`); knows no argv, no HTTP, no terminal: it takes
 * typed wishes, reports progress through a callback and gives typed results. Invariants: children are stored before
 * parents, and the reference last; a cached image needs no network; a machine folder is complete or absent.
 */
import type { BlobAudit } from "../content/blob_audit.ts";
import type { Collector } from "../content/collector.ts";
import type { ContentStore } from "../content/content_store.ts";
import type { DerivedDisks } from "../content/derived_disks.ts";
import type { Leases } from "../content/lease.ts";
import type { Architecture } from "../image/platform.ts";
import type { DomainControl } from "../libvirt/domain_control.ts";
import type { MachineStore } from "../machine/machine_store.ts";
import type { Registries } from "../registry/registries.ts";
import type { ImageLimits } from "./image_limits.ts";
import type { KnownAcceleration } from "./known_acceleration.ts";
import type { KnownFindings } from "./known_findings.ts";

/** What every use case is given. Opened once by the composition root. */
export type AgentContext = {
  readonly content: ContentStore;
  /** What operations under way need stays in the cache. */
  readonly leases: Leases;
  readonly collector: Collector;
  /** Whether blobs at rest still are what their names say. */
  readonly audit: BlobAudit;
  /** What layers in the cache were found to hold. */
  readonly findings: KnownFindings;
  /** What machines of an architecture are run with, as chosen a moment ago. */
  readonly acceleration: KnownAcceleration;
  /** Disks unpacked from packed layers. */
  readonly derived: DerivedDisks;
  readonly machines: MachineStore;
  readonly rootDirectory: string;
  /** What the cache may take, and shall leave. */
  readonly cacheBudget: CacheBudget;
  /** Closed by whoever opened the context, when the process ends. */
  readonly registries: Registries;
  readonly imageLimits: ImageLimits;
  readonly libvirtUri: string;
  /** The service's; without one each use case opens a connection of its own. */
  readonly libvirtSession?: DomainControl;
  readonly hostArchitecture: Architecture;
  readonly isRoot: boolean;
  /** Where the user's own QEMU firmware descriptors may be. Absolute. */
  readonly configHome: string;
  /** Something the user should know, but that stops nothing. */
  readonly note: (message: string) => void;
};

/** Whether to ask the registry: `missing` asks only for what the cache has not, `always` also what a tag means now. */
export type PullPolicy = "missing" | "always" | "never";

/** In force for each collection, unless it is given others. Null: none. */
export type CacheBudget = {
  readonly maxBytes: number | null;
  readonly keepFreeBytes: number | null;
  readonly minAgeMs: number | null;
};

export const NO_BUDGET: CacheBudget = { maxBytes: null, keepFreeBytes: null, minAgeMs: null };
