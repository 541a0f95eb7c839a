/** Prepares one image again and again in this process, and prints how many milliseconds each took. */
import process from "node:process";
import { prepare } from "../../src/agent/prepare.ts";
import { parseReference } from "../../src/image/reference.ts";
import { openAgent } from "../support/agent_kit.ts";
import { prepareWish } from "../support/machine_wish.ts";

const [root = "", name = "", count = ""] = process.argv.slice(2);
const context = await openAgent(root);
const wish = prepareWish(parseReference(name), null);
await prepare(context, wish);
const values: number[] = [];
for (let number = 0; number < Number(count); number++) {
  const startMs = performance.now();
  await prepare(context, wish);
  values.push(performance.now() - startMs);
}
console.log(JSON.stringify(values));
process.exit();
