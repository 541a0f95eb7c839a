import { ShimError } from "../errors.ts";
import { type Digest, shortDigest } from "../image/digest.ts";
import type { CacheSurvey, CacheUser, Reached, SurveyedEntry } from "./cache_survey.ts";
import { isPinned, nameOf } from "./index_entry.ts";

/** What is to be given up. */
export type RemoveWish = {
  /** Entries to forget. */
  readonly names: readonly string[];
  /** A document to give up though entries may go on naming it. */
  readonly digest?: Digest | undefined;
};

/**
 * Refuses what is pinned, and what is known without looking into any document to be in use.
 *
 * @throws {ShimError} IN_USE
 */
export function requireUnclaimed(
  { entries, users, leased }: CacheSurvey,
  { names, digest }: RemoveWish,
): void {
  for (const entry of entries) {
    const name = nameOf(entry);
    if (name === undefined || !names.includes(name) || !isPinned(entry)) continue;
    throw new ShimError("IN_USE", `Cannot remove image "${name}": it is pinned`, {
      details: { reference: name, remedy: `run: bootshim unpin ${name}` },
    });
  }
  if (!digest) return;
  requireNoUser(shortDigest(digest), { users, leased: new Set(leased), documents: new Set([digest]) });
  // A layer, too: a machine reads it, whether or not an image that it is a part of still has a name.
  const readers = users.filter(({ needs, digests }) => needs.includes(digest) || digests.includes(digest));
  if (readers.length > 0) throw usedByMachines(shortDigest(digest), readers.map(({ id }) => id));
}

/**
 * Refuses images that a machine or an operation under way needs, unless another name keeps what it needs.
 *
 * @throws {ShimError} IN_USE
 */
export function requireUnused(
  { users }: CacheSurvey,
  { targets, others, digest, leased, leasedBlobs }: {
    readonly targets: readonly SurveyedEntry[];
    readonly others: readonly SurveyedEntry[];
    /** A document to give up though others go on naming it. */
    readonly digest: Digest | undefined;
    /** Documents that operations under way need, those inside of indexes among them. */
    readonly leased: ReadonlySet<Digest>;
    /** All that operations under way need: a lease need not name what a document that it names leads to. */
    readonly leasedBlobs: ReadonlySet<Digest>;
  },
): void {
  if (digest) {
    requireNoUser(shortDigest(digest), { users, leased: leasedBlobs, documents: new Set([digest]) });
  }
  const kept = new Set(others.flatMap((each) => [...each.documents]));
  for (const { name = "", documents } of targets) {
    requireNoUser(name, {
      users,
      leased,
      documents: new Set([...documents].filter((each) => !kept.has(each))),
    });
  }
}

/**
 * A layer is removed with its image, or not at all.
 *
 * @throws {ShimError} REQUEST_INVALID
 */
export function requireNoPart(digest: Digest, { entries }: Reached): void {
  const whole = entries.find((each) => each.all.has(digest) && !each.documents.has(digest));
  if (!whole) return;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot remove "${shortDigest(digest)}": it is a part of image "${whole.name ?? whole.digest}"`,
    { details: { digest, remedy: `remove the image: bootshim rm ${whole.name ?? whole.digest}` } },
  );
}

function requireNoUser(
  what: string,
  { users, leased, documents }: {
    readonly users: readonly CacheUser[];
    readonly leased: ReadonlySet<Digest>;
    readonly documents: ReadonlySet<Digest>;
  },
): void {
  const machines = users.filter((user) => documents.has(user.manifestDigest)).map((user) => user.id);
  if (machines.length > 0) throw usedByMachines(what, machines);
  if ([...documents].some((digest) => leased.has(digest))) {
    throw new ShimError("IN_USE", `Cannot remove image "${what}": an operation under way needs it`, {
      details: { remedy: "try again when it is done" },
    });
  }
}

function usedByMachines(what: string, machines: readonly string[]): ShimError {
  const remedy = `give them up first: bootshim release ${machines[0]}`;
  return new ShimError(
    "IN_USE",
    `Cannot remove image "${what}": ${machines.length} machines are made from it, ${
      machines.slice(0, 5).join(", ")
    }${machines.length > 5 ? " and others" : ""}`,
    { details: { machines, remedy } },
  );
}
