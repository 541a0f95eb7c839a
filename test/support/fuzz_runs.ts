/** How often a property is tried: a few hundred times, or as often as the environment says. */
export const FUZZ_RUNS = Number(process.env["BOOTSHIM_FUZZ_RUNS"] ?? 300);
