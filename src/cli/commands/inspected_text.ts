import prettyBytes from "pretty-bytes";
import type { InspectedImage } from "../../agent/inspect.ts";
import { shortDigest } from "../../image/digest.ts";
import { isIndexType } from "../../image/media_type.ts";
import { printable } from "../printable.ts";
import { formatTree, type TreeNode, type TreeOptions } from "../text_tree.ts";

/** An image as a picture: the index with its manifests, below the chosen one its layers, and the ways to boot. */
export function formatInspected(image: InspectedImage, options: TreeOptions): string {
  const { boot } = image;
  // What counts, which the image need not be who says it.
  const cmdline = boot ? boot.cmdline ?? "not seen" : (image.commandLine ?? "").trimEnd();
  return [
    `reference  ${printable(image.reference)}\n`,
    ...(boot ? [`boot       ${boot.mode}, firmware ${boot.firmware}; ${printable(boot.reason)}\n`] : []),
    `cmdline    ${printable(cmdline)}`.trimEnd() + "\n\n",
    formatTree(imageNode(image), options) + "\n",
    formatTree(bootNode(image), options),
    image.modesVerified
      ? ""
      : "note: the modes were told from small parts of layers, not yet verified; prepare decides again\n",
    ...image.notes.map((note) => `note: ${printable(note)}\n`),
  ].join("");
}

function imageNode(image: InspectedImage): TreeNode {
  const layers = image.layers.map((layer): TreeNode => ({
    cells: [
      layer.role,
      prettyBytes(layer.sizeBytes, { binary: true }),
      shortDigest(layer.digest),
      layer.isCached ? "cached" : "not cached",
      layer.mediaType,
    ],
    ...(layer.summary === null ? {} : { children: [{ cells: [layer.summary] }] }),
  }));
  if (!isIndexType(image.mediaType)) {
    return { cells: [`manifest ${image.digest}`], look: "strong", children: layers };
  }
  let isShown = false;
  const entries = image.entries.map((entry): TreeNode => {
    // An index may list a manifest twice; what is in it is told once.
    const isFirst = entry.isChosen && !isShown;
    isShown ||= entry.isChosen;
    return {
      cells: [
        entry.architecture ?? "any",
        entry.os ?? "any",
        entry.variant ?? "unstated",
        entry.digest,
        entry.isChosen ? "<- chosen" : "",
      ],
      ...(entry.isChosen ? { look: "strong" } : {}),
      ...(isFirst ? { children: layers } : {}),
    };
  });
  return { cells: [`index ${image.digest}`], children: entries };
}

function bootNode({ modes, boot }: InspectedImage): TreeNode {
  return {
    cells: ["boot"],
    children: modes.map(({ mode, possible, why }) => {
      const isChosen = mode === boot?.mode;
      return {
        cells: [mode, isChosen ? "chosen" : wordOf(possible), why],
        look: isChosen ? "strong" : possible === false ? "faint" : undefined,
      };
    }),
  };
}

function wordOf(possible: boolean | null): string {
  return possible === null ? "unknown" : possible ? "possible" : "no";
}
