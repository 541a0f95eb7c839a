import { ShimError } from "../errors.ts";
import type { FetchOptions } from "../image/image_source.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, withAttempts } from "./resume.ts";
import type { RegistryResponse } from "./transport.ts";
import { readUncoded } from "./uncoded_body.ts";

/** Over this, a list is not for reading but for keeping somebody busy. */
const MAX_PAGES = 200;

export type Page = {
  /** The body, as JSON of any shape. */
  readonly value: unknown;
  readonly contentType: string;
};

type ListRequest = FetchOptions & {
  /** Below `/v2/REPOSITORY/`. */
  readonly path: string;
  readonly query?: string;
  readonly accept: string;
  /** Completes "Cannot …". */
  readonly action: string;
};

/**
 * A list page by page, from the registry itself, which names each next page by a Link.
 *
 * @throws {ShimError} REGISTRY_NOT_FOUND and its like; REDIRECT_REFUSED when the next page is at another origin;
 *   REGISTRY_PROTOCOL when a page is no JSON or the Link leads elsewhere; LIMIT_EXCEEDED over 200 pages, when they go
 *   round in a circle, or when one is over 4 MiB
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags
 */
export async function* readPages(repository: Repository, request: ListRequest): AsyncGenerator<Page> {
  const { path, action } = request;
  const seen = new Set<string>();
  let query: string | undefined = request.query ?? "";
  while (query !== undefined) {
    seen.add(query);
    const { page, next } = await readPage(repository, { ...request, path: `${path}${query}` });
    yield page;
    query = next;
    if (query === undefined) return;
    if (seen.has(query) || seen.size >= MAX_PAGES) {
      throw new ShimError(
        "LIMIT_EXCEEDED",
        `Cannot ${action}: its pages do not end, at most ${MAX_PAGES} are read`,
      );
    }
  }
}

async function readPage(
  repository: Repository,
  { path, accept, action, signal }: ListRequest,
): Promise<{ page: Page; next: string | undefined }> {
  return await withAttempts(new Attempts(repository.limits, { signal }), async () => {
    const response = await repository.ask({ method: "GET", path, headers: { accept }, action, signal });
    try {
      if (response.status !== 200) throw await responseError(response, action);
      const bytes = await readUncoded(response, { maxBytes: MAX_DOCUMENT_BYTES, action });
      if (bytes === undefined) {
        throw new ShimError("LIMIT_EXCEEDED", `Cannot ${action}: a page is over ${MAX_DOCUMENT_BYTES} bytes`);
      }
      const contentType = response.header("content-type")?.split(";", 1)[0]?.trim().toLowerCase() ?? "";
      return {
        page: { value: parseJson(bytes, action), contentType },
        next: nextQuery(response, action),
      };
    } finally {
      response.discard();
    }
  });
}

function parseJson(bytes: Uint8Array, action: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the answer is not JSON`, { cause: error });
  }
}

/** Of the next page only the query is taken: host and path stay ours. */
function nextQuery(response: RegistryResponse, action: string): string | undefined {
  const target = /<([^<>]*)>\s*;[^<>]*\brel="?next\b/i.exec(response.header("link") ?? "")?.[1];
  if (target === undefined) return undefined;
  const url = URL.canParse(target, response.url) ? new URL(target, response.url) : undefined;
  if (url !== undefined && url.origin !== response.url.origin) {
    throw new ShimError(
      "REDIRECT_REFUSED",
      `Cannot ${action}: its next page is at another origin, "${url.host}"`,
    );
  }
  if (url === undefined || url.pathname !== response.url.pathname) {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: the Link to its next page is none`);
  }
  return url.search;
}
