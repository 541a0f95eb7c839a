import { ShimError } from "../errors.ts";
import {
  type FirmwareWish,
  type LayerFindings,
  type LayerSizes,
  obstacleInManifest,
  squashfsFault,
  type Verdict,
  VERDICTS,
} from "./boot_verdicts.ts";
import type { FormatFault } from "./format_fault.ts";
import type { BootMode, Firmware, ModeVerdict } from "./prepared_boot.ts";

export type { LayerFindings } from "./boot_verdicts.ts";

export type BootWish = { readonly boot: BootMode | "auto"; readonly firmware: FirmwareWish };

export type BootDecision = {
  readonly mode: BootMode;
  readonly firmware: Firmware;
  readonly reason: string;
  readonly modes: readonly ModeVerdict[];
  /** The layers that become disks, in guest order. */
  readonly diskRoles: readonly ("rootfs" | "squashfs")[];
  readonly usesInitramfs: boolean;
  /** The longest command line the kernel says it takes; null when it does not say, or the mode has none. */
  readonly commandLineLimitBytes: number | null;
};

/** In the order in which `auto` prefers them. */
const MODES: readonly BootMode[] = ["disk", "kernel", "uki", "iso"];

/**
 * Decides how an image boots, from what its layers hold, and says why.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE when the wished mode, or with `auto` every mode, is impossible; instead of it
 *   FORMAT_MISMATCH, FORMAT_UNSAFE or LIMIT_EXCEEDED when that is because a layer is not what it is published as (a dummy
 *   of zeros counts as none); `details.modes` has a verdict for each
 */
export function decideBoot(findings: LayerFindings, wish: BootWish): BootDecision {
  const verdicts = verdictsOf(findings, wish);
  const modes = verdicts.map(({ mode, verdict: { possible, why } }) => ({
    mode,
    // What nobody has seen, nobody boots.
    possible: possible === true,
    why,
  }));
  const chosen = verdicts.find(({ mode, verdict }) =>
    wish.boot === "auto" ? verdict.possible : wish.boot === mode
  );
  if (!chosen?.verdict.possible) {
    const faults = verdicts.map(({ mode, verdict }) => ({
      mode,
      fault: verdict.possible === false ? verdict.fault : undefined,
    }));
    throw impossible(modes, { wish, faults });
  }
  const { mode, verdict } = chosen;
  const kernel = mode === "kernel" && findings.kernel?.kind === "kernel" ? findings.kernel : undefined;
  return {
    mode,
    firmware: verdict.firmware,
    reason: `${wish.boot === "auto" ? "chosen" : "asked for"}: ${verdict.why}`,
    modes,
    diskRoles: diskRolesOf(mode, findings),
    // A unified kernel image holds its own.
    usesInitramfs: kernel !== undefined && kernel.format !== "UKI" &&
      findings.initramfs?.isInitramfs === true,
    commandLineLimitBytes: kernel?.commandLineLimitBytes ?? null,
  };
}

/** As {@link ModeVerdict}, of layers that were not wholly seen: null where that leaves it open. */
export type ForeseenMode = Omit<ModeVerdict, "possible"> & { readonly possible: boolean | null };

/** What {@link decideBoot} will say of an image, as far as what was seen of its layers tells. */
export type BootForecast = {
  readonly modes: readonly ForeseenMode[];
  /** Null when no mode that may be taken is possible, and when one that goes before the others may be. */
  readonly decision: BootDecision | null;
};

/** Says how an image would boot, by the first bytes of its layers or all of them. */
export function foreseeBoot(findings: LayerFindings, wish: BootWish): BootForecast {
  const modes = modeVerdicts(findings, wish);
  const first = modes.find(({ mode, possible }) =>
    wish.boot === "auto" ? possible !== false : wish.boot === mode
  );
  return { modes, decision: first?.possible ? decideBoot(findings, wish) : null };
}

/** For each mode whether the image can boot in it, and why (not). */
export function modeVerdicts(findings: LayerFindings, wish: BootWish): readonly ForeseenMode[] {
  return verdictsOf(findings, wish).map(({ mode, verdict: { possible, why } }) => ({ mode, possible, why }));
}

function verdictsOf(
  findings: LayerFindings,
  wish: BootWish,
): readonly { readonly mode: BootMode; readonly verdict: Verdict }[] {
  return MODES.map((mode) => ({ mode, verdict: VERDICTS[mode](findings, wish.firmware) }));
}

/**
 * Refuses a wish that the manifest alone shows to be impossible, before anything large is transferred.
 *
 * @throws {ShimError} as {@link decideBoot}
 */
export function requireLayersFor(sizes: LayerSizes, wish: BootWish): void {
  const obstacles = MODES.map((mode) => {
    return { mode, obstacle: obstacleInManifest(sizes, { mode, firmware: wish.firmware }) };
  });
  const modes = obstacles.map(({ mode, obstacle }) => ({
    mode,
    possible: obstacle === undefined,
    why: obstacle?.why ?? "the image has the layers for it",
  }));
  if (!modes.some(({ mode, possible }) => possible && isAskedFor(mode, wish))) {
    throw impossible(modes, {
      wish,
      faults: obstacles.map(({ mode, obstacle }) => ({ mode, fault: obstacle?.fault })),
    });
  }
}

function isAskedFor(mode: BootMode, { boot }: BootWish): boolean {
  return boot === "auto" || boot === mode;
}

type ModeFault = { readonly mode: BootMode; readonly fault: FormatFault | undefined };

/** A layer that is not what it should be is what to mend; the first, where there are several. */
function impossible(
  modes: readonly ModeVerdict[],
  { wish, faults }: { readonly wish: BootWish; readonly faults: readonly ModeFault[] },
): ShimError {
  const tried = wish.boot === "auto" ? "in any mode" : `in mode "${wish.boot}"`;
  const why = wish.boot === "auto"
    ? modes.map((each) => `${each.mode}: ${each.why}`)
    : modes.filter((each) => each.mode === wish.boot).map((each) => each.why);
  const broken = faults.find(({ mode, fault }) => fault !== undefined && isAskedFor(mode, wish));
  const remedy = `publish the image anew, with a ${broken?.mode} layer that is what its media type says`;
  return new ShimError(
    broken?.fault ?? "BOOT_MODE_IMPOSSIBLE",
    `Cannot boot the image ${tried}: ${why.join("; ")}`,
    { details: { modes, ...(broken ? { remedy } : {}) } },
  );
}

/**
 * Beside a kernel (a unified one is none the less one), a partitioned rootfs is another system's disk: only a bare file
 * system belongs to the kernel, and comes before the squashfs, if that is one. An ISO brings its own root.
 */
function diskRolesOf(mode: BootMode, { rootfs, squashfs }: LayerFindings): ("rootfs" | "squashfs")[] {
  if (mode === "disk") return ["rootfs"];
  if (mode === "iso") return [];
  const disks: ("rootfs" | "squashfs")[] = [];
  if (rootfs?.kind === "file-system") disks.push("rootfs");
  if (squashfs && squashfsFault(squashfs) === undefined) disks.push("squashfs");
  return disks;
}
