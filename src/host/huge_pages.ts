import { readFile } from "node:fs/promises";

/**
 * How many bytes of the host's pool of huge pages nobody uses: pages of the default size, which QEMU and libvirt take.
 *
 * @see https://docs.kernel.org/admin-guide/mm/hugetlbpage.html
 */
export async function freeHugePageBytes(path = "/proc/meminfo"): Promise<number> {
  const text = await readFile(path, "utf8");
  const fieldOf = (name: string) => Number(new RegExp(`^${name}:\\s+([0-9]+)`, "m").exec(text)?.[1] ?? 0);
  // Reserved pages are free only until whoever reserved them touches them.
  return (fieldOf("HugePages_Free") - fieldOf("HugePages_Rsvd")) * fieldOf("Hugepagesize") * 1024;
}
