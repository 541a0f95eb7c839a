import type { Endpoint } from "./endpoint.ts";
import type { RegistryLimits } from "./limits.ts";
import type { Transport } from "./transport.ts";

/** What every verb needs: where, by what connections, within which bounds. */
export type Repository = {
  readonly endpoint: Endpoint;
  readonly transport: Transport;
  readonly limits: RegistryLimits;
};
