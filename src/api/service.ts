/**
 * @module api: the local API of `bootshim serve`: HTTP in, use cases of `agent/` out.
 *
 * May import `agent/`, `config/` types, `image/` and `host/`; the only folder that knows hono. Invariants: the routes'
 * table (`routes/`) makes router, checks and OpenAPI document alike; nothing is parsed before the caller is known; state
 * is read from disk and libvirt, never remembered; a stack trace never leaves the process.
 */
import type { AgentContext } from "../agent/agent_context.ts";
import type { Finding } from "../agent/doctor.ts";
import type { Turns } from "../agent/turns.ts";
import type { EventLog } from "./event_log.ts";
import type { Metrics } from "./metrics.ts";
import type { Operations } from "./operations.ts";

/** What every route works with. */
export type Service = {
  readonly context: AgentContext;
  readonly operations: Operations;
  /** Where what changes something without being an operation waits: verbs of machines, collections. */
  readonly errands: Turns;
  /** What this host has and lacks, as it was a few seconds ago at most. */
  readonly examineHost: () => Promise<readonly Finding[]>;
  readonly events: EventLog;
  readonly metrics: Metrics;
  readonly version: string;
  /** Whether new work is taken: false while the service ends. */
  readonly isReady: () => boolean;
  /** References a caller may not name, although the configuration's policy has nothing against them. */
  readonly checkReference: (reference: string) => void;
};
