import prettyBytes from "pretty-bytes";
import type { InspectedImage } from "../../agent/inspect.ts";
import { shortDigest } from "../../image/digest.ts";
import { isIndexType } from "../../image/media_type.ts";
import { printable } from "../printable.ts";
import { formatTree, type TreeNode, type TreeOptions } from "../text_tree.ts";

/** An image as a picture: the index with its manifests, below the chosen one its layers, and the ways to boot. */
export function formatInspected(image: InspectedImage, options: TreeOptions): string {
  return [
    `reference  ${printable(image.reference)}\n`,
    `cmdline    ${printable((image.commandLine ?? "").trimEnd())}`.trimEnd() + "\n\n",
    formatTree(imageNode(image), options) + "\n",
    formatTree(bootNode(image), options),
    image.modesVerified
      ? ""
      : "note: the modes were told from the first 64 KiB of layers, not yet verified; prepare decides again\n",
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

/** The first possible mode is the one that boots unless another is asked for. */
function bootNode({ modes }: InspectedImage): TreeNode {
  const chosen = modes.find((mode) => mode.possible);
  return {
    cells: ["boot"],
    children: modes.map((mode) => ({
      cells: [mode.mode, mode === chosen ? "chosen" : mode.possible ? "possible" : "no", mode.why],
      look: mode === chosen ? "strong" : mode.possible ? undefined : "faint",
    })),
  };
}
