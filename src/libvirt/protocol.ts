import type { ErrorCode, ErrorDetails } from "../errors.ts";
import type { Notice } from "./connection_watch.ts";
import type { DomainStatus, LibvirtVersion } from "./domain_status.ts";

/** What the main thread may ask of the worker, and what each gives. Each takes one text, or none. */
export type Results = {
  readonly open: void;
  readonly openWatched: void;
  readonly version: LibvirtVersion;
  readonly capabilitiesXml: string;
  readonly domainCapabilitiesXml: string;
  readonly defineDomain: DomainStatus;
  readonly findDomain: DomainStatus | null;
  readonly listDomains: DomainStatus[];
  readonly startDomain: void;
  readonly shutdownDomain: void;
  readonly destroyDomain: void;
  readonly undefineDomain: void;
  readonly domainXml: string;
  readonly keptDomainXml: string;
  readonly close: void;
};

export type Method = keyof Results;

/**
 * Main to worker. `argument` is the URI, the XML, the domain's name, or for domainCapabilitiesXml two words; empty
 * where there is none.
 */
export type Request = { readonly id: number; readonly method: Method; readonly argument: string };

/** Worker to main: once `started`, then one answer to each request, in order; notices of a watched connection between. */
export type Reply =
  | { readonly kind: "started"; readonly threadPath: string }
  | { readonly kind: "result"; readonly id: number; readonly result: unknown }
  | {
    readonly kind: "failure";
    readonly id: number;
    readonly code: ErrorCode;
    readonly message: string;
    readonly details: ErrorDetails;
  }
  | Notice;

/**
 * Checks a request in the worker. By hand: loading zod there would double the time to the first answer.
 *
 * @param isMethod whether the worker serves a method of that name
 * @throws {TypeError} when it is none
 */
export function parseRequest(message: unknown, isMethod: (name: string) => name is Method): Request {
  if (typeof message === "object" && message !== null) {
    const { id, method, argument }: Partial<Record<keyof Request, unknown>> = message;
    if (
      typeof id === "number" && typeof method === "string" && isMethod(method) && typeof argument === "string"
    ) {
      return { id, method, argument };
    }
  }
  throw new TypeError("Cannot serve request: its shape is unknown");
}
