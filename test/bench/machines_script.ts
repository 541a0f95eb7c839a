/**
 * Prepares machines of one image side by side in this process, as the service does. Arguments: root, image, method of
 * making the disks, how many. Prints which method it was in the end.
 */
import process from "node:process";
import { prepare } from "../../src/agent/prepare.ts";
import { parseReference } from "../../src/image/reference.ts";
import { openAgent } from "../support/agent_kit.ts";
import { prepareWish } from "../support/machine_wish.ts";

const [root = "", name = "", method = "", count = ""] = process.argv.slice(2);
const clone = (["auto", "overlay", "reflink", "copy"] as const).find((each) => each === method) ?? "auto";
const context = await openAgent(root);
const reference = parseReference(name);
await prepare(context, prepareWish(reference, null));
const documents = await Promise.all(
  Array.from(
    { length: Number(count) },
    (_, index) => prepare(context, prepareWish(reference, { id: `${clone}-${index}`, clone })),
  ),
);
const methods = new Set(documents.flatMap(({ machine }) => machine?.disks.map((disk) => disk.method) ?? []));
console.log(JSON.stringify({ methods: [...methods] }));
process.exit();
