import { readFile } from "node:fs/promises";

let bootId: Promise<string | null> | undefined;

/** What the kernel calls this boot of the host; null when it does not say. */
export function currentBootId(): Promise<string | null> {
  return bootId ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then(
    (text) => text.trim() || null,
    () => null,
  );
}
