/**
 * Asks a service for its health again and again until SIGTERM, and prints then how long each answer took, as a JSON
 * array of milliseconds. A process of its own: who asks for much at once would measure itself.
 *
 * Arguments: the service's socket.
 */
import { Agent, request } from "node:http";
import { setTimeout as wait } from "node:timers/promises";

const PAUSE_MS = 5;
const [socketPath = ""] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const waitsMs: number[] = [];
let isOver = false;
process.once("SIGTERM", () => isOver = true);

const ask = () =>
  new Promise<void>((resolve, reject) => {
    const asking = request({ socketPath, path: "/healthz", agent }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`healthz answered ${answer.statusCode}`));
      answer.resume().once("end", resolve);
    });
    asking.once("error", reject).end();
  });

await ask();
console.log("asks");
while (!isOver) {
  const askedMs = performance.now();
  await ask();
  waitsMs.push(performance.now() - askedMs);
  await wait(PAUSE_MS);
}
console.log(JSON.stringify(waitsMs));
agent.destroy();
