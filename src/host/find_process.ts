import { readdir, readFile } from "node:fs/promises";

/**
 * The processes of this host whose arguments hold these, one after the other. One that ends meanwhile, or that may not
 * be looked at, is not found.
 *
 * @throws an errno error when there is no /proc
 */
export async function findProcesses(argumentsInRow: readonly string[]): Promise<number[]> {
  const wanted = `\0${argumentsInRow.join("\0")}\0`;
  const ids = (await readdir("/proc")).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(ids.map(async (id) => {
    const words = await readFile(`/proc/${id}/cmdline`, "utf8").catch(() => "");
    return words.includes(wanted) ? [Number(id)] : [];
  }));
  return found.flat();
}
