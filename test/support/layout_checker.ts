/**
 * Says what is wrong with a cache on disk. Knows the format and the contract, and deliberately nothing of the store's
 * code: plain `node:fs` and `node:crypto`.
 */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, type Stats } from "node:fs";
import { join } from "node:path";

export type LayoutExpectations = {
  /** The group that may read blobs; none: nobody but the owner. */
  readonly groupId?: number;
  /** After a kill and before the next opening, `ingest/` and a half-written index may be there. */
  readonly isAfterKill?: boolean;
  /** After a failed or killed update a record may be a step ahead of the index, or left over: collection removes it. */
  readonly areRecordsAhead?: boolean;
  /** No image lacks anything: none is sparse. */
  readonly areImagesWhole?: boolean;
  /** How many interrupted transfers that can be continued `ingest/` holds; default none. */
  readonly partials?: number | "any";
};

type Entry = { digest: string; size: number; mediaType: string; annotations?: Record<string, string> };

const REF_NAME = "org.opencontainers.image.ref.name";
const REF_NAME_GRAMMAR =
  /^[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:\/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*$/;

/** @returns one line for each violation; an empty list is a sound cache */
export function layoutProblems(root: string, expected: LayoutExpectations = {}): string[] {
  const problems: string[] = [];
  const check = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem);
  };
  const images = join(root, "images");
  const directoryMode = expected.groupId === undefined ? 0o700 : 0o750;
  const fileMode = expected.groupId === undefined ? 0o400 : 0o440;
  const isShared = (stats: Stats) => expected.groupId === undefined || stats.gid === expected.groupId;
  const permissions = (stats: Stats) => stats.mode & 0o7777;

  for (const name of [".", "images", "images/blobs", "images/blobs/sha256", "images/blobs/sha512"]) {
    const stats = lstatSync(join(root, name));
    check(
      stats.isDirectory() && permissions(stats) === directoryMode && isShared(stats),
      `directory ${name}: ${permissions(stats).toString(8)} ${stats.gid}`,
    );
  }
  for (const name of ["ingest", "locks", "references"]) {
    check(permissions(lstatSync(join(root, name))) === 0o700, `directory ${name} is not private`);
  }
  const isAhead = expected.isAfterKill || expected.areRecordsAhead;
  const names = readdirSync(images).filter((name) => !(isAhead && name === ".index.json.new"))
    .filter((name) => !/^index\.json\.damaged-\d+$/.test(name)).sort();
  check(JSON.stringify(names) === '["blobs","index.json","oci-layout"]', `images/ holds ${names}`);
  if (!expected.isAfterKill) {
    problems.push(...partialProblems(root, expected.partials ?? 0));
  }
  check(
    readFileSync(join(images, "oci-layout"), "utf8") === '{"imageLayoutVersion":"1.0.0"}',
    "oci-layout differs",
  );

  for (const algorithm of readdirSync(join(images, "blobs"))) {
    check(algorithm === "sha256" || algorithm === "sha512", `blobs/ holds ${algorithm}`);
    for (const name of readdirSync(join(images, "blobs", algorithm))) {
      const path = join(images, "blobs", algorithm, name);
      const stats = lstatSync(path);
      const hash = stats.isFile()
        ? createHash(algorithm).update(readFileSync(path)).digest("hex")
        : "no regular file";
      check(hash === name, `blob ${name} hashes to ${hash}`);
      check(
        permissions(stats) === fileMode && isShared(stats),
        `blob ${name}: ${permissions(stats).toString(8)} ${stats.gid}`,
      );
    }
  }

  const index: { schemaVersion: number; manifests: Entry[] } = JSON.parse(
    readFileSync(join(images, "index.json"), "utf8"),
  );
  check(index.schemaVersion === 2, `index.json has schemaVersion ${index.schemaVersion}`);
  check((lstatSync(join(images, "index.json")).mode & 0o077) === 0, "index.json is not private");
  const seen = new Set<string>();
  for (const { digest, size, annotations = {} } of index.manifests) {
    const own = annotations["io.bootshim.reference"];
    if (own === undefined) continue;
    check(!seen.has(own), `index.json names ${own} twice`);
    seen.add(own);
    check(REF_NAME_GRAMMAR.test(annotations[REF_NAME] ?? ""), `${own} has the name ${annotations[REF_NAME]}`);
    const path = join(images, "blobs", ...digest.split(":"));
    const found = lstatSync(path, { throwIfNoEntry: false });
    check(found?.size === size, `${own} names ${digest} of ${size} bytes, found ${found?.size}`);
  }
  problems.push(...recordProblems(root, index.manifests, expected));
  if (expected.areImagesWhole) {
    const own = index.manifests.filter((entry) => entry.annotations?.["io.bootshim.reference"] !== undefined);
    const missing = own.flatMap((entry) => missingBelow(images, entry.digest));
    const machines = machineDigests(root).flatMap((digest) => missingBelow(images, digest));
    for (const digest of new Set([...missing, ...machines])) {
      problems.push(`blob ${digest} is named, and not there`);
    }
  }
  return problems;
}

/** Every blob that a document leads to and that is not there. */
function missingBelow(images: string, digest: string): string[] {
  const path = join(images, "blobs", ...digest.split(":"));
  if (!lstatSync(path, { throwIfNoEntry: false })?.isFile()) return [digest];
  let document: { manifests?: Entry[]; config?: Entry; layers?: Entry[] };
  try {
    document = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return []; // a layer
  }
  const below = [
    ...document.manifests ?? [],
    ...document.config ? [document.config] : [],
    ...document.layers ?? [],
  ];
  return below.flatMap((entry) => missingBelow(images, entry.digest));
}

/** What each machine was made from. */
function machineDigests(root: string): string[] {
  const machines = join(root, "machines");
  if (!lstatSync(machines, { throwIfNoEntry: false })) return [];
  return readdirSync(machines).filter((name) => !name.startsWith(".")).map((name) =>
    JSON.parse(readFileSync(join(machines, name, "machine.json"), "utf8")).manifestDigest
  );
}

/** Each of our entries has its record, written before it; after a kill there may be one more, or a newer one. */
function recordProblems(root: string, entries: readonly Entry[], expected: LayoutExpectations): string[] {
  const problems: string[] = [];
  const isAhead = expected.areRecordsAhead === true || expected.isAfterKill === true;
  const files = new Set(readdirSync(join(root, "references")));
  for (const entry of entries) {
    const own = entry.annotations?.["io.bootshim.reference"];
    if (own === undefined) continue;
    const file = `${createHash("sha256").update(own).digest("hex")}.json`;
    if (!files.delete(file)) {
      problems.push(`${own} has no record`);
      continue;
    }
    const path = join(root, "references", file);
    if ((lstatSync(path).mode & 0o777) !== 0o600) problems.push(`the record of ${own} is not private`);
    const record = JSON.parse(readFileSync(path, "utf8"));
    const isSame = JSON.stringify(record) === JSON.stringify({ schemaVersion: 1, name: own, entry });
    if (!isSame && !(isAhead && record.name === own)) {
      problems.push(`the record of ${own} is another one`);
    }
  }
  const strays = [...files];
  if (!isAhead && strays.length > 0) problems.push(`references/ holds ${strays}`);
  return problems;
}

/** A transfer to be continued is a private file and its description, shorter than the blob or as long, and no blob yet. */
function partialProblems(root: string, count: number | "any"): string[] {
  const names = readdirSync(join(root, "ingest")).sort();
  const keys = names.filter((name) => /^sha(?:256|512)-[0-9a-f]+\.partial$/.test(name)).map((name) =>
    name.slice(0, -".partial".length)
  );
  const expected = keys.flatMap((key) => [`${key}.json`, `${key}.partial`]).sort();
  if (count !== "any" && keys.length !== count || JSON.stringify(names) !== JSON.stringify(expected)) {
    return [`ingest/ holds ${names}, must hold ${count} transfers`];
  }
  return keys.flatMap((key) => {
    const data = lstatSync(join(root, "ingest", `${key}.partial`));
    const metadata: { digest: string; sizeBytes: number } = JSON.parse(
      readFileSync(join(root, "ingest", `${key}.json`), "utf8"),
    );
    const blob = join(root, "images", "blobs", ...key.split("-"));
    return [
      ...data.isFile() && (data.mode & 0o077) === 0 ? [] : [`partial ${key} is no private file`],
      ...data.size <= metadata.sizeBytes ? [] : [`partial ${key} is longer than its blob`],
      ...metadata.digest === key.replace("-", ":")
        ? []
        : [`partial ${key} is said to be of ${metadata.digest}`],
      ...lstatSync(blob, { throwIfNoEntry: false }) ? [`partial ${key} is a blob already`] : [],
    ];
  });
}
