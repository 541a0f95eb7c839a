import type { Endpoint } from "./endpoint.ts";
import type { RegistryLimits } from "./limits.ts";
import type { WarningLog } from "./pacing/warning_log.ts";
import type { ReadAhead } from "./transfer/read_ahead.ts";
import type { UnsteadyOrigins } from "./transfer/same_entity.ts";
import type { TransferQueue } from "./transfer/transfer_queue.ts";
import type { RegistryRequest, RegistryResponse } from "./transport.ts";

/** A GET or HEAD of something that a repository holds. */
export type ReadRequest = Omit<RegistryRequest, "method" | "url" | "body"> & {
  readonly method: "GET" | "HEAD";
  /** Below `/v2/REPOSITORY/`, made of checked words only; with the query, if it has one. */
  readonly path: string;
};

/** What transfers of all repositories share. */
export type SharedTransfers = {
  readonly queue: TransferQueue;
  readonly readAhead: ReadAhead;
  readonly unsteadyOrigins: UnsteadyOrigins;
  readonly warnings: WarningLog;
};

/** A request to the registry itself, by its user. */
export type OwnRequest = Omit<RegistryRequest, "authorizedFor" | "sentBy"> & {
  /** Another repository of the registry that it reads from. */
  readonly alsoPulls?: string;
};

/** What every verb needs: where, within which bounds, and the ways to get there. None tries anything twice. */
export type Repository = {
  readonly endpoint: Endpoint;
  readonly limits: RegistryLimits;
  readonly shared: SharedTransfers;
  /** Whether a wrong Docker-Content-Digest is worth a warning only. What bytes hash to counts in any case. */
  readonly ignoresDigestHeader: boolean;
  /** Reads from any place that may answer for this repository, mirrors first; follows redirects. */
  readonly fetch: (request: ReadRequest) => Promise<RegistryResponse>;
  /** Like `fetch`, but of what only the registry itself knows: which tags there are, and what refers to an image. */
  readonly ask: (request: ReadRequest) => Promise<RegistryResponse>;
  /**
   * What was fetched from a path is wrong, or is not wanted again if it was right: mirrors that served it are not asked
   * for it for a while.
   *
   * @returns whether one had served it, so that asking again asks another place
   */
  readonly doubt: (path: string) => boolean;
  /** Asks the registry itself; follows redirects of GET and HEAD only. */
  readonly send: (request: OwnRequest) => Promise<RegistryResponse>;
};
