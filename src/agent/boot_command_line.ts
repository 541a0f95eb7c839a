import { mergeCommandLine } from "../boot/command_line.ts";
import type { BootDecision, LayerFindings } from "../boot/decide_boot.ts";
import type { UnifiedKernel } from "../boot/uki_content.ts";
import { ShimError } from "../errors.ts";
import type { StatedCommandLine } from "./cmdline_layer.ts";

/** What the caller says of the command line. */
export type CommandLineWishes = {
  /** Replaces what the image says. */
  readonly cmdline: string | undefined;
  readonly appends: readonly string[];
};

export type BootCommandLine = {
  /** The one that counts. */
  readonly cmdline: string;
  /** Why the boot is as it is: the decision's reason, and a word where another command line might have been expected. */
  readonly reason: string;
};

type Decided = {
  readonly wish: CommandLineWishes;
  readonly decision: BootDecision;
  readonly findings: LayerFindings;
};

/**
 * A unified kernel image's own command line is stronger than what stands beside it in the image: its builder made them
 * one. Started as `uki` it takes no other at all; as a `kernel` it takes what the caller says.
 *
 * @throws {ShimError} CMDLINE_INVALID
 */
export function bootCommandLine(
  stated: StatedCommandLine,
  { wish, decision, findings }: Decided,
): BootCommandLine {
  const isStated = (stated.layer ?? stated.config ?? "").trim() !== "";
  const uki = bootedUki({ decision, findings });
  if (decision.mode === "uki") {
    const isWished = wish.cmdline !== undefined || wish.appends.length > 0;
    const ignored = [
      ...(isStated ? ["the image's other one"] : []),
      ...(isWished ? ["--cmdline and --append"] : []),
    ];
    return {
      cmdline: ownLine(uki) ?? "",
      reason: ignored.length === 0
        ? decision.reason
        : `${decision.reason}; its own command line counts, ${ignored.join(" and ")} ${
          isWished ? "do" : "does"
        } not`,
    };
  }
  const own = uki?.sections.includes(".cmdline") ? ownLine(uki) ?? "" : undefined;
  if (own === "" && wish.cmdline === undefined && wish.appends.length > 0) {
    throw new ShimError(
      "CMDLINE_INVALID",
      "Cannot add to the command line inside the unified kernel image: it is no printable text",
      { details: { remedy: "give the whole command line with --cmdline" } },
    );
  }
  const line = mergeCommandLine({
    replacement: wish.cmdline,
    ...(own === undefined ? stated : { config: own }),
    appends: wish.appends,
    hasRootDisk: decision.mode === "kernel" && decision.diskRoles.includes("rootfs") && own !== "",
  });
  requireWithin(line, decision);
  const isOwn = own !== undefined && isStated && wish.cmdline === undefined;
  return {
    cmdline: line,
    reason: isOwn
      ? `${decision.reason}; its own command line counts, the image's other one does not`
      : decision.reason,
  };
}

/** The unified kernel image that boots, whichever role it has. */
export function bootedUki(
  { decision: { mode }, findings: { kernelUki, uki } }: Pick<Decided, "decision" | "findings">,
): UnifiedKernel | undefined {
  const content = mode === "uki" ? uki : mode === "kernel" ? kernelUki : undefined;
  return content?.kind === "uki" ? content : undefined;
}

/** As the stub hands it to the kernel: in one line. */
function ownLine(uki: UnifiedKernel | undefined): string | undefined {
  return uki?.cmdline?.replaceAll(/[\n\t]/g, " ");
}

function requireWithin(line: string, { commandLineLimitBytes: limitBytes }: BootDecision): void {
  const sizeBytes = new TextEncoder().encode(line).length;
  if (limitBytes === null || sizeBytes <= limitBytes) return;
  throw new ShimError(
    "CMDLINE_INVALID",
    `Cannot use the command line: ${sizeBytes} bytes, the kernel takes at most ${limitBytes} bytes`,
  );
}
