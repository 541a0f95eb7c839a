import type { Endpoint } from "./endpoint.ts";
import type { RegistryLimits } from "./limits.ts";
import type { RegistryRequest, RegistryResponse } from "./transport.ts";

/** A GET or HEAD of something that a repository holds. */
export type ReadRequest = Omit<RegistryRequest, "method" | "url" | "body"> & {
  readonly method: "GET" | "HEAD";
  /** Below `/v2/REPOSITORY/`, made of checked words only. */
  readonly path: string;
};

/** What every verb needs: where, within which bounds, and the two ways to get there. Neither tries anything twice. */
export type Repository = {
  readonly endpoint: Endpoint;
  readonly limits: RegistryLimits;
  /** Reads from any place that may answer for this repository; follows redirects. */
  readonly fetch: (request: ReadRequest) => Promise<RegistryResponse>;
  /** Asks the registry itself; follows redirects of GET and HEAD only. */
  readonly send: (request: RegistryRequest) => Promise<RegistryResponse>;
};
