import type { AuditedBlob } from "../content/blob_audit.ts";
import { ShimError } from "../errors.ts";
import { runAtMost } from "../host/at_most.ts";
import type { Digest } from "../image/digest.ts";
import type { AgentContext } from "./agent_context.ts";
import { cacheUsers } from "./cache_users.ts";
import type { OperationOptions } from "./progress.ts";
import { repairImages } from "./repair_images.ts";

/** How many blobs are hashed side by side: reading one goes on while another is hashed. */
const PARALLEL_HASHES = 4;

/** What is wrong in the cache, and whether it was put right. */
export type CacheProblem = {
  /** `corrupt`: a blob, or a disk unpacked from one, was damaged; `missing`: an image or a machine names a blob that is not there; `name`: index and record of a name disagree. */
  readonly kind: "corrupt" | "missing" | "name";
  readonly digest: Digest | null;
  readonly reference: string | null;
  readonly why: string;
  /** Where a damaged blob lies now. A damaged unpacked disk is removed: it can be made again. */
  readonly quarantined: string | null;
  readonly isRepaired: boolean;
};

export type CheckedCache = {
  readonly checkedBlobs: number;
  /** Disks unpacked from packed layers. */
  readonly checkedDisks: number;
  /** Of both. */
  readonly checkedBytes: number;
  readonly problems: readonly CacheProblem[];
};

/**
 * Hashes every blob and every unpacked disk anew, and compares what names say with what is there. A damaged blob is moved away at once, so that
 * nobody uses it; with `isRepair` what images still name of such is fetched again, and names get their records.
 *
 * @throws {ShimError} CACHE_LAYOUT_INVALID; CANCELLED, NO_SPACE, BUSY, IO_ERROR; problems that were found are told, not
 *   thrown
 */
export async function checkCache(
  context: AgentContext,
  { isRepair }: { readonly isRepair: boolean },
  options: OperationOptions = {},
): Promise<CheckedCache> {
  const hashed = await hashAll(context, options);
  const disks = await hashDisks(context, hashed.checkedBytes, options);
  const checked = {
    checkedBlobs: hashed.checkedBlobs,
    checkedDisks: disks.checkedDisks,
    checkedBytes: hashed.checkedBytes + disks.checkedBytes,
  };
  const found = [...hashed.problems, ...await missingRoots(context), ...await nameProblems(context)];
  if (!isRepair || found.length === 0) return { ...checked, problems: [...found, ...disks.problems] };
  await context.collector.writeRecords();
  const lost = found.map((problem) => problem.digest).filter((digest) => digest !== null);
  const failures = await repairImages(context, new Set(lost), options);
  const names = new Set((await context.collector.compareRecords()).map((each) => each.name));
  const problems: CacheProblem[] = [];
  for (const problem of found) {
    const isLeft = problem.kind === "name"
      ? names.has(problem.reference ?? "")
      : problem.digest !== null && !await isBack(context, problem);
    const failure = isLeft && problem.digest ? failures.get(problem.digest) : undefined;
    problems.push({
      ...problem,
      isRepaired: !isLeft,
      why: failure ? `${problem.why}; fetching it again: ${failure}` : problem.why,
    });
  }
  return { ...checked, problems: [...problems, ...disks.problems] };
}

async function hashAll(
  context: AgentContext,
  { signal, onProgress }: OperationOptions,
): Promise<Omit<CheckedCache, "checkedDisks">> {
  const digests = await context.audit.list();
  const problems: CacheProblem[] = [];
  let checkedBlobs = 0;
  let checkedBytes = 0;
  const running = new Map<Digest, number>();
  const tell = () => {
    const doneBytes = [...running.values()].reduce((sum, bytes) => sum + bytes, checkedBytes);
    // How much there is in all is known when it has been read.
    onProgress?.({ phase: "checking", doneBytes, totalBytes: doneBytes, layers: [] });
  };
  await runAtMost(PARALLEL_HASHES, digests.sort(), { signal }, async (digest) => {
    const onBytes = (bytes: number) => {
      running.set(digest, bytes);
      tell();
    };
    const found = await context.audit.audit(digest, undefined, { signal, onProgress: onBytes, isAnew: true });
    running.delete(digest);
    if (found.state === "absent") return; // collected meanwhile
    checkedBlobs += 1;
    if (found.state === "sound") checkedBytes += found.status.sizeBytes;
    else problems.push(corrupt(digest, found));
  });
  return { checkedBlobs, checkedBytes, problems };
}

/** A wrong one is gone by then. That is all it takes, unless a machine reads it, which gets it back by being prepared. */
async function hashDisks(
  context: AgentContext,
  beforeBytes: number,
  { signal, onProgress }: OperationOptions,
): Promise<Omit<CheckedCache, "checkedBlobs">> {
  const problems: CacheProblem[] = [];
  let checkedDisks = 0;
  let checkedBytes = 0;
  for (const digest of (await context.derived.list()).sort()) {
    const tell = (bytes: number) => {
      const doneBytes = beforeBytes + checkedBytes + bytes;
      onProgress?.({ phase: "checking", doneBytes, totalBytes: doneBytes, layers: [] });
    };
    const found = await context.derived.check(digest, { signal, onProgress: tell });
    if (!found) continue;
    checkedDisks += 1;
    if (found.isSound) {
      checkedBytes += found.sizeBytes;
      continue;
    }
    const reader = (await cacheUsers(context.machines)).find(({ needs }) => needs.includes(digest));
    const why = reader ? `${found.why}; machine "${reader.id}" reads it: prepare it again` : found.why;
    problems.push({ kind: "corrupt", digest, reference: null, why, quarantined: null, isRepaired: !reader });
  }
  return { checkedDisks, checkedBytes, problems };
}

function corrupt(digest: Digest, found: AuditedBlob & { readonly state: "quarantined" }): CacheProblem {
  const { why, quarantinePath: quarantined } = found;
  return { kind: "corrupt", digest, reference: null, why, quarantined, isRepaired: false };
}

/** Below a root anything may be absent, because images are fetched for one platform; a root may not, nor what a machine reads. */
async function missingRoots(context: AgentContext): Promise<CacheProblem[]> {
  const problems: CacheProblem[] = [];
  const missing = (digest: Digest, reference: string | null, who: string): CacheProblem => ({
    kind: "missing",
    digest,
    reference,
    why: `${who} names "${digest}", which is not there`,
    quarantined: null,
    isRepaired: false,
  });
  for (const { name, descriptor } of await context.content.references()) {
    if (!await context.content.hasBlob(descriptor)) {
      problems.push(missing(descriptor.digest, name, `image "${name}"`));
    }
  }
  const present = new Set(await context.audit.list());
  for (const { id, manifestDigest, needs } of await cacheUsers(context.machines)) {
    for (const digest of new Set([manifestDigest, ...needs])) {
      if (!present.has(digest)) problems.push(missing(digest, null, `machine "${id}"`));
    }
  }
  return problems;
}

async function nameProblems(context: AgentContext): Promise<CacheProblem[]> {
  return (await context.collector.compareRecords()).map(({ name, why }) => ({
    kind: "name",
    digest: null,
    reference: name,
    why: `image "${name}": ${why}`,
    quarantined: null,
    isRepaired: false,
  }));
}

/** Nobody needs it any more, or it is there again. */
async function isBack(context: AgentContext, { digest, kind }: CacheProblem): Promise<boolean> {
  if (digest === null) return true;
  if ((await context.audit.audit(digest, undefined)).state === "sound") return true;
  return kind === "corrupt" && !await isNamed(context, digest);
}

async function isNamed(context: AgentContext, digest: Digest): Promise<boolean> {
  try {
    return await context.collector.isNeeded(digest);
  } catch (error) {
    if (error instanceof ShimError && error.code === "CACHE_LAYOUT_INVALID") return true;
    throw error;
  }
}

/** What to tell whoever asks only whether all is well. @throws {ShimError} CONTENT_CORRUPT */
export function requireSoundCache({ problems }: CheckedCache): void {
  const left = problems.filter((problem) => !problem.isRepaired);
  const [first] = left;
  if (!first) return;
  throw new ShimError(
    "CONTENT_CORRUPT",
    `Cannot vouch for the cache: ${left.length} problems, first ${first.why}`,
    {
      details: { problems: left.length, remedy: "run: bootshim check --repair" },
    },
  );
}
