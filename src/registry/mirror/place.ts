import type { TlsFiles } from "../network/tls_trust.ts";

/** One server that answers for a registry: the registry itself, or a mirror of it. */
export type Place = {
  /** Ends in `/v2/`, or in what the user says instead. A repository's name comes after it. */
  readonly baseUrl: URL;
  /** Whether it is asked what a tag means now. Content is asked of every place: its digest tells whether it is right. */
  readonly resolves: boolean;
  /** Whether it is asked for content. */
  readonly pulls: boolean;
  /** Sent to this place only. Names in lower case. May hold secrets. */
  readonly headers: Readonly<Record<string, string>>;
  readonly tls?: TlsFiles;
};

/** The places of one registry. */
export type Places = {
  /** In the order in which they are asked. */
  readonly mirrors: readonly Place[];
  /** Asked last, instead of the registry that the name means. */
  readonly server?: Place;
  /** Whether the configuration has something for this very registry: then it may be on any network. */
  readonly isNamed?: boolean;
  /** What TLS to the registry itself needs. */
  readonly tls?: TlsFiles;
};

/** Tells the places of a registry by `HOST[:PORT]` as references spell it. */
export type FindPlaces = (host: string) => Promise<Places>;
