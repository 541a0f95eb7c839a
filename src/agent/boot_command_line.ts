import { mergeCommandLine } from "../boot/command_line.ts";
import type { BootDecision, LayerFindings } from "../boot/decide_boot.ts";
import { recogniseUki, type UnifiedKernel } from "../boot/uki_content.ts";
import { ShimError } from "../errors.ts";
import type { AgentContext } from "./agent_context.ts";
import { cmdlineLayer, decodeCmdlineLayer } from "./cmdline_layer.ts";
import type { ResolvedImage } from "./resolve_image.ts";

/** What the caller says of the command line. */
export type CommandLineWishes = {
  /** Replaces what the image says. */
  readonly cmdline: string | undefined;
  readonly appends: readonly string[];
};

/** The command line that counts, and a word where it is not the one that somebody might expect. */
export type BootCommandLine = { readonly cmdline: string; readonly note: string | undefined };

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
export async function bootCommandLine(
  context: AgentContext,
  image: ResolvedImage,
  { wish, decision, findings }: Decided,
): Promise<BootCommandLine> {
  const layer = await readLayer(context, image);
  const stated = { layer, config: image.config.commandLine };
  const isStated = (layer ?? stated.config ?? "").trim() !== "";
  const uki = await bootedUki(context, image, { decision, findings });
  if (decision.mode === "uki") {
    const isWished = wish.cmdline !== undefined || wish.appends.length > 0;
    const ignored = [
      ...(isStated ? ["the image's other one"] : []),
      ...(isWished ? ["--cmdline and --append"] : []),
    ];
    return {
      cmdline: ownLine(uki) ?? "",
      note: ignored.length === 0
        ? undefined
        : `its own command line counts, ${ignored.join(" and ")} ${isWished ? "do" : "does"} not`,
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
    note: isOwn ? "its own command line counts, the image's other one does not" : undefined,
  };
}

/** The unified kernel image that boots, whichever role it has. */
async function bootedUki(
  context: AgentContext,
  image: ResolvedImage,
  { decision: { mode }, findings: { kernel, uki } }: Pick<Decided, "decision" | "findings">,
): Promise<UnifiedKernel | undefined> {
  if (mode === "uki") return uki?.kind === "uki" ? uki : undefined;
  const isUki = mode === "kernel" && kernel?.kind === "kernel" && kernel.format === "UKI";
  const layer = isUki ? image.layers.find((each) => each.role === "kernel") : undefined;
  const content = layer && await recogniseUki(context.content.blobWindow(layer.descriptor));
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

async function readLayer(context: AgentContext, image: ResolvedImage): Promise<string | undefined> {
  const layer = cmdlineLayer(image);
  return layer && decodeCmdlineLayer(layer, (await context.content.readDocument(layer)).bytes);
}
