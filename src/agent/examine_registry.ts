import { toShimError } from "../errors.ts";
import { formatReference, type RegistryReference } from "../image/reference.ts";
import type { Waypoint } from "../registry/registries.ts";
import type { AgentContext } from "./agent_context.ts";
import { type Finding, finding, ok, type Verdict } from "./doctor.ts";
import { withRegistry } from "./open_source.ts";

type Options = { readonly signal?: AbortSignal | undefined };

/**
 * Looks at the way to an image: every place that is asked for it, in order, and through which proxy. A mirror that does
 * not answer is no failure: it is passed over.
 */
export async function examineRegistry(
  context: AgentContext,
  reference: RegistryReference,
  options: Options = {},
): Promise<Finding[]> {
  let route: readonly Waypoint[] = [];
  const configured = await finding("registry", async () => {
    route = await context.registries.route(reference);
    return ok("");
  });
  if (configured.verdict !== "ok") return [configured];
  const [last] = route.slice(-1);
  return [
    ...await Promise.all(
      route.slice(0, -1).map((place) => finding("mirror", () => examineMirror(context, place, options))),
    ),
    await finding(
      "registry",
      () => examineImage(context, reference, { ...options, proxy: last?.proxy ?? null }),
    ),
  ];
}

async function examineMirror(
  { registries }: AgentContext,
  { url, resolves, proxy }: Waypoint,
  { signal }: Options,
): Promise<Verdict> {
  const what = `${url.href} (${resolves ? "tags and content" : "content"}${through(proxy)})`;
  try {
    const action = `reach mirror "${url.host}"`;
    const { status, discard } = await registries.send({ method: "GET", url, headers: {}, action, signal });
    discard();
    // Any answer will do: not every mirror has something to say there.
    if (status < 500) return ok(what);
    return { verdict: "warn", found: `${what} answers ${status}`, remedy: "look at the mirror's own log" };
  } catch (error) {
    const { message, details } = toShimError(error);
    return { verdict: "warn", found: `${what}: ${message}`, remedy: details.remedy ?? "see the message" };
  }
}

async function examineImage(
  context: AgentContext,
  reference: RegistryReference,
  { signal, proxy }: Options & { readonly proxy: string | null },
): Promise<Verdict> {
  const { descriptor } = await withRegistry(
    context,
    reference,
    (client) => client.resolve(reference.digest ?? reference.tag, { signal }),
  );
  return ok(`${formatReference(reference)} is ${descriptor.digest}${through(proxy)}`);
}

function through(proxy: string | null): string {
  return proxy === null ? "" : `, through the proxy ${proxy}`;
}
