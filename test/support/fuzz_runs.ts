/**
 * How often a property is tried: a few hundred times, or as often as BOOTSHIM_FUZZ_RUNS says. Vitest loads this file
 * before the tests of the unit and fuzz lanes: in the long lane every property follows that does not state its own
 * number.
 */
import fc from "fast-check";

const asked = process.env["BOOTSHIM_FUZZ_RUNS"];

export const FUZZ_RUNS = asked === undefined ? 300 : Number(asked);
if (!Number.isSafeInteger(FUZZ_RUNS) || FUZZ_RUNS < 1) {
  throw new Error(`BOOTSHIM_FUZZ_RUNS is ${JSON.stringify(asked)}, must be a number of runs`);
}

if (asked !== undefined) fc.configureGlobal({ ...fc.readConfigureGlobal(), numRuns: FUZZ_RUNS });
