import { toShimError } from "../../errors.ts";
import { dialledHost } from "../endpoint.ts";
import type { ReadRequest } from "../repository.ts";
import type { RegistryRequest, RegistryResponse } from "../transport.ts";
import type { Place } from "./place.ts";
import type { PlaceMemory } from "./place_memory.ts";

/** Where a repository may be read, and how. */
export type ReadingPlaces = {
  /** `HOST[:PORT]` of the registry, which a mirror of several is told. */
  readonly host: string;
  readonly repository: string;
  readonly mirrors: readonly Place[];
  /** Asked when no mirror has it. Its answer is the answer, whatever it is. */
  readonly last: Place;
  readonly memory: PlaceMemory;
  readonly send: (request: RegistryRequest) => Promise<RegistryResponse>;
};

/**
 * Reads from the first place that has it. A mirror that has it not, refuses, fails or breaks costs one request; none of
 * it is the caller's failure, as long as the registry answers.
 *
 * @throws {ShimError} what asking the registry itself throws; CANCELLED
 * @see https://github.com/containerd/containerd/blob/main/docs/hosts.md
 */
export async function fetchFromPlaces(
  places: ReadingPlaces,
  request: ReadRequest,
): Promise<RegistryResponse> {
  const { memory, last, send } = places;
  const key = contentKey(places, request.path);
  for (const mirror of places.mirrors) {
    const name = mirror.baseUrl.href;
    if (!isFor(mirror, request.path) || !memory.isAsked(name, key)) continue;
    try {
      const response = await send(requestTo(mirror, places, request));
      if (response.status === 200 || response.status === 206) {
        memory.served(name, key);
        return { ...response, body: watched(response.body, () => memory.rest(name)) };
      }
      response.discard();
      if (response.status === 429 || response.status >= 500) memory.rest(name);
      else memory.doubt(name, key);
    } catch (error) {
      if (toShimError(error).code === "CANCELLED") throw error;
      memory.rest(name);
    }
  }
  return await send(requestTo(last, places, request));
}

/** What content is called in the memory: the same through every place. */
export function contentKey({ host, repository }: { host: string; repository: string }, path: string): string {
  return `${host}/${repository}/${path}`;
}

/** A tag is what the registry says it is, unless the user trusts the mirror in this, too. */
function isFor(mirror: Place, path: string): boolean {
  const isTag = !path.includes(":");
  return isTag ? mirror.resolves : mirror.pulls;
}

function requestTo(
  { baseUrl, headers }: Place,
  { host, repository, last }: ReadingPlaces,
  { path, ...request }: ReadRequest,
): RegistryRequest {
  const url = new URL(`${repository}/${path}`, baseUrl);
  const isOther = baseUrl.host !== last.baseUrl.host;
  if (isOther) url.search = `${url.search === "" ? "?" : `${url.search}&`}ns=${encodeURIComponent(host)}`;
  // A mirror that is a project of a larger registry knows the repository by a longer name.
  const prefix = baseUrl.pathname.replace(/^\/v2\//, "").replace(/^\//, "");
  const authorizedFor = {
    host: baseUrl.host === dialledHost(host) ? host : baseUrl.host,
    repository: `${prefix}${repository}`,
    actions: "pull",
  } as const;
  return { ...request, headers: { ...headers, ...request.headers }, url, authorizedFor };
}

/** What breaks half-way is asked elsewhere the next time. */
async function* watched(
  body: AsyncIterable<Uint8Array>,
  onFailure: () => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (error) {
    if (toShimError(error).code !== "CANCELLED") onFailure();
    throw error;
  }
}
