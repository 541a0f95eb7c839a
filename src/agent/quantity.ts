import { ShimError } from "../errors.ts";

const FACTORS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  m: 2 ** 20,
  mib: 2 ** 20,
  g: 2 ** 30,
  gib: 2 ** 30,
  t: 2 ** 40,
  tib: 2 ** 40,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

/**
 * Reads a size as people write it: `20GiB`, `512M`, `1.5GiB`, `1000000`. A bare letter is binary, as in QEMU and LVM.
 *
 * @param option names the option in the error
 * @returns whole bytes
 * @throws {ShimError} REQUEST_INVALID
 */
export function parseSize(text: string, option: string): number {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([a-zA-Z]{0,3})$/.exec(text.trim());
  const unit = match?.[2]?.toLowerCase() ?? "";
  const factor = Object.hasOwn(FACTORS, unit) ? FACTORS[unit] : undefined;
  const bytes = match && factor !== undefined ? Math.round(Number(match[1]) * factor) : Number.NaN;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use ${option} ${JSON.stringify(text)}: must be a size such as 20GiB, 512MiB or 1000000`,
  );
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/**
 * Reads a time span as people write it: `90s`, `30m`, `24h`, `7d`; `0` needs no unit.
 *
 * @param option names the option in the error
 * @returns whole milliseconds
 * @throws {ShimError} REQUEST_INVALID
 */
export function parseDuration(text: string, option: string): number {
  const match = /^([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([a-z]{0,3})$/.exec(text.trim());
  const amount = Number(match?.[1] ?? Number.NaN);
  const unit = match?.[2] ?? "";
  const factor = Object.hasOwn(UNIT_MS, unit) ? UNIT_MS[unit] : amount === 0 && unit === "" ? 1 : undefined;
  if (factor !== undefined && Number.isFinite(amount)) return Math.round(amount * factor);
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use ${option} ${JSON.stringify(text)}: must be a time span such as 90s, 30m, 24h or 7d`,
  );
}
