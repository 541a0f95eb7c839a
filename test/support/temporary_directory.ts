import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";

/** In memory, where the host has such a place: for tests that sync a thousand times and mean the order only. */
export const MEMORY_DIRECTORY = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

/**
 * Gives every test of the file a directory of its own, removed afterwards.
 *
 * @param parent where it is made
 * @returns the current test's directory; call it inside the test
 */
export function useTemporaryDirectory(parent = tmpdir()): () => string {
  let directory = "";
  beforeEach(async () => {
    directory = await mkdtemp(join(parent, "bootshim-test-"));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });
  return () => directory;
}
