import type { measureCycles, measureFrozen, measureRestarts } from "./libvirt_measures.ts";

/** What the binding to libvirt promises. */
export const LIBVIRT_PROMISES = {
  /** From the daemon's first answer to ours. */
  reconnectedMs: 5_000,
  /** Of the main thread's delay, 99 of 100 times, while libvirtd is frozen and a registry is silent. */
  mainDelayMs: 20,
} as const;

type Measured<F extends (...parameters: never[]) => Promise<unknown>> = Awaited<ReturnType<F>>;

export type LibvirtMeasures = {
  readonly held: Measured<typeof measureCycles>;
  readonly restarted: Measured<typeof measureRestarts>;
  readonly frozen: Measured<typeof measureFrozen>;
};

/** What an operation under a dying daemon may come to: done, or the daemon was away, or had ended the guest meanwhile. */
const HONEST_OUTCOMES: ReadonlySet<string> = new Set([
  "done",
  "HYPERVISOR_UNAVAILABLE",
  "DOMAIN_FAILED",
  "MACHINE_NOT_FOUND",
  "CONFLICT",
]);

/** The promises that these measures show to be broken, in words. */
export function brokenPromises({ held, restarted, frozen }: LibvirtMeasures): string[] {
  const other = Object.keys(restarted.outcomes).filter((code) => !HONEST_OUTCOMES.has(code));
  const kept: readonly (readonly [boolean, string])[] = [
    [
      held.late.descriptors <= held.early.descriptors,
      `no descriptor is left by a cycle: ${held.early.descriptors} became ${held.late.descriptors}`,
    ],
    [
      held.late.threads < held.early.threads + 8,
      `no thread is left by a cycle: ${held.early.threads} became ${held.late.threads}`,
    ],
    [
      held.late.rssMib - held.early.rssMib < 32,
      `memory does not grow with the cycles: ${held.early.rssMib} MiB became ${held.late.rssMib} MiB`,
    ],
    [
      restarted.reconnectedMs.max < LIBVIRT_PROMISES.reconnectedMs,
      `connected again within ${LIBVIRT_PROMISES.reconnectedMs} ms: took ${restarted.reconnectedMs.max} ms`,
    ],
    [restarted.mostQemus <= 1, `no machine is started twice: ${restarted.mostQemus} QEMUs of one`],
    [restarted.orphans === 0, `no QEMU is left that libvirt does not know: ${restarted.orphans}`],
    [(restarted.outcomes["done"] ?? 0) > 0, "operations succeed between the daemon's deaths: none did"],
    [other.length === 0, `operations fail by the daemon's absence alone: ${other.join(", ")}`],
    [
      frozen.delayMs.p99 < LIBVIRT_PROMISES.mainDelayMs,
      `the main thread's delay stays under ${LIBVIRT_PROMISES.mainDelayMs} ms (p99): ${frozen.delayMs.p99} ms`,
    ],
    [frozen.hungCallsFailed === 4, `each hung call ends: ${frozen.hungCallsFailed} of 4 did`],
    [frozen.blackHoled > 0, "a registry was silent meanwhile: none was asked"],
  ];
  return kept.filter(([isKept]) => !isKept).map(([, text]) => text);
}
